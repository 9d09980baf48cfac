"""A Griffe extension: fences the doctests of docstrings, which Markdown would read as quotations."""

import re

import griffe


class Examples(griffe.Extension):
    """`>>>` lines and their output become a code block of their own."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: object) -> None:
        if obj.docstring:
            fenced = re.sub(
                r"((?:^ *>>> .*\n?)(?:^.*\S.*\n?)*)", r"```pycon\n\1\n```\n", obj.docstring.value, flags=re.M
            )
            obj.docstring.value = re.sub(r" +# doctest: \+\w+", "", fenced)
