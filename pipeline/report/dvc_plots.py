"""The HTML template of `dvc plots show`, which needs no network."""

PLOTS = "{plot_divs}"


def plots_page() -> str:
    """Return the template with Vega included; DVC's own template loads Vega from a network."""
    import vl_convert

    script = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub lacks the default
    bundle = script.replace("</script", "<\\/script")
    head = '<!DOCTYPE html>\n<html>\n<head>\n<meta charset="utf-8">\n<title>Plots</title>'
    return f"{head}\n<script>{bundle}</script>\n</head>\n<body>\n{PLOTS}\n</body>\n</html>\n"
