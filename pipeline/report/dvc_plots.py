"""The page in which `dvc plots show` draws, without a network."""

PLOTS = "{plot_divs}"


def plots_page() -> str:
    """Return an HTML template for `dvc plots show` with Vega inside, where DVC's own loads it from a network.

    :return: The page, with the place-holder that DVC fills.
    """
    import vl_convert

    script = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub lacks the default
    bundle = script.replace("</script", "<\\/script")
    head = '<!DOCTYPE html>\n<html>\n<head>\n<meta charset="utf-8">\n<title>Plots</title>'
    return f"{head}\n<script>{bundle}</script>\n</head>\n<body>\n{PLOTS}\n</body>\n</html>\n"
