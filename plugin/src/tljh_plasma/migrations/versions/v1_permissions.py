"""Permissions and descriptions of environments."""

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "permissions",
        sa.Column("image", sa.Unicode(512), primary_key=True),
        sa.Column("group", sa.Unicode(64), primary_key=True),
    )
    op.create_table(
        "descriptions",
        sa.Column("image", sa.Unicode(512), primary_key=True),
        sa.Column("text", sa.Unicode(1024), nullable=False),
    )


def downgrade():
    op.drop_table("descriptions")
    op.drop_table("permissions")
