"""The licences that the Hub knows."""

from __future__ import annotations

from hf_smile.errors import SmileError
from hf_smile.utils.words import did_you_mean

_LIST = "https://huggingface.co/docs/hub/repositories-licenses"

_KNOWN = """
afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0
cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0
cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2
fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 grok2-community h-research intel-research isc lgpl
lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by
ofl-1.1 openmdw-1.0 openmdw-1.1 openrail openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
"""
"""The identifiers on that page, as of August 2026."""


def check_license(license: str) -> None:
    """Check that a licence is an identifier of the Hub.

    Raises:
        SmileError: it is not.

    >>> check_license("Apache 2.0")
    Traceback (most recent call last):
    hf_smile.errors.SmileError: 'Apache 2.0' is not a licence identifier of the Hub; did you mean 'apache-2.0'?
    'other' is for licences not on the list: https://huggingface.co/docs/hub/repositories-licenses
    """
    if license not in (known := _KNOWN.split()):
        hint = did_you_mean(license.lower(), known)
        raise SmileError(
            f"{license!r} is not a licence identifier of the Hub{hint}\n"
            f"'other' is for licences not on the list: {_LIST}"
        )
