"""Alembic's entry: runs the migrations on the connection that ``Store.upgrade`` hands over."""

from alembic import context

from tljh_plasma.access import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter most of a table in place.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
