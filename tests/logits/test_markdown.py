from pipeline.logits.markdown import aligned, escape_markdown


def test_aligned():
    assert aligned([["student", "accuracy"], ["bilstm", "0.8"], ["teacher of all", "0.91"]]) == (
        "| student        | accuracy |\n"
        "| -------------- | -------: |\n"
        "| bilstm         |      0.8 |\n"
        "| teacher of all |     0.91 |"
    )


def test_a_table_of_long_text_is_not_padded():
    assert aligned([["", ""], ["a", "long text"]], pad=False) == "|  |  |\n| --- | --- |\n| a | long text |"


def test_escaped_text_is_one_line_without_markup():
    text = "a *b* `c`\n# <i>d</i> | [e](f) ~~g~~ $h$ i_j &amp; \\"
    assert escape_markdown(text) == (r"a \*b\* \`c\` # \<i\>d\</i\> \| \[e\](f) \~\~g\~\~ \$h\$ i\_j \&amp; \\")
