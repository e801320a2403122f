"""What an instance asks for, put together: its parameters, its variant's, and what config_url names.

A configuration may hold secrets: its values stand in no sentence here, and no address is shown with its query.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from snf_image_host.fetch import fetch
from snf_image_host.params import (
    CONFIG_URL,
    IMG_ID,
    KNOWN,
    ParameterError,
    Parameters,
    check_values,
    merge,
    parse_parameters,
)
from snf_image_host.plan import check_parameters
from snf_image_host.settings import Settings, load_variant
from snf_image_host.sources import StoreImage
from snf_image_host.sources.store import find_stored
from snf_image_host.vm import HelperImage
from synnefo_light.errors import Error
from synnefo_light.log import escape, logger
from synnefo_light.manifest import FRAMED_LIMIT
from synnefo_light.records import RecordError, dump_json, load_json

#: As much as a manifest holds: it is the way for what no variable of a script's environment can (128 KiB each).
CONFIG_LIMIT: Final = FRAMED_LIMIT
#: Parameters whose text is JSON; a configuration may give them as JSON itself.
_JSON: Final = frozenset({"img_properties", "inst_properties", "img_personality"})


def read_parameters(
    given: Mapping[str, str], variant: str, settings: Settings, helper: HelperImage, *, image_needed: bool = True
) -> Parameters:
    """All of it. Fetches what config_url names. Raises UserError, PeerError.

    Without `image_needed` an image of the store may be gone; its properties are then.
    """
    asked = merge(given, load_variant(variant, settings).parameters)
    source = CONFIG_URL.of(asked)
    if source is not None:
        content = fetch(source, settings, what="config_url", limit=CONFIG_LIMIT)
        asked |= parse_configuration(content)
    return _parsed(asked, settings, helper, image_needed=image_needed)


def verify_parameters(given: Mapping[str, str], variant: str, settings: Settings, helper: HelperImage) -> None:
    """The same without fetching anything: with config_url each value is only looked at by itself. Raises UserError.

    An image of the store must be there.
    """
    asked = merge(given, load_variant(variant, settings).parameters)
    if CONFIG_URL.of(asked) is not None:
        check_values(asked)
        return
    check_parameters(_parsed(asked, settings, helper), settings, helper)


def _parsed(
    asked: Mapping[str, str], settings: Settings, helper: HelperImage, *, image_needed: bool = True
) -> Parameters:
    """With what the store says of the image, if it is one of the store. Raises UserError when there is no such."""
    source, stored = IMG_ID.of(asked), None
    if isinstance(source, StoreImage):
        try:
            stored = find_stored(source, settings)
        except Error as e:
            if image_needed:
                raise
            logger.warning("image=%s has no properties that could be asked for: %s", source.reference, e)
    return parse_parameters(asked, tasks=helper.tasks, strict=settings.strict_properties, stored=stored)


def parse_configuration(content: bytes) -> dict[str, str]:
    """A JSON object of OS parameters; all but config_url itself. Raises ParameterError."""
    try:
        data = load_json(content, limit=CONFIG_LIMIT)
        if not isinstance(data, dict):
            raise RecordError("it is not a JSON object of names and values")
        found: dict[str, str] = {}
        for name, value in data.items():
            if name not in KNOWN or name == CONFIG_URL.name:
                raise RecordError(f"'{escape(name, limit=80)}' is not a parameter that it may give")
            if isinstance(value, str):
                found[name] = value
            elif name in _JSON and isinstance(value, dict | list):
                found[name] = dump_json(value).decode()
            else:
                raise RecordError(f"the value of {name} is not text")
        return found
    except RecordError as e:
        raise ParameterError(f"config_url: what it names cannot be used: {e}") from None
