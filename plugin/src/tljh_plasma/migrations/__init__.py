"""Migrations of the permissions' file (see ``tljh_plasma.access``), run by alembic."""
