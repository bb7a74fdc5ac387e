"""The app of Django: imports the module `workflows` of each app, as the admin does with `admin`."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class FlowqConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """flowq as an app; it has no models."""

    name = "flowq.django"
    label = "flowq"
    verbose_name = "flowq"

    def ready(self) -> None:
        """Import the workflows of all apps."""
        autodiscover_modules("workflows")
