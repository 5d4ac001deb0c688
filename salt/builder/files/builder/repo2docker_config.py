# repo2docker reads this from the directory it is started in.
from repo2docker.contentproviders import Git, Local

# The others ask Zenodo, Dataverse and their like about every address first, and wait long where none is reachable.
c.Repo2Docker.content_providers = [Local, Git]  # noqa: F821
