"""Builds of environments: repo2docker in containers that outlive the service, one after another."""

from .builder import Builder
from .request import BuildRefused, BuildRequest, image_name

__all__ = ["BuildRefused", "BuildRequest", "Builder", "image_name"]
