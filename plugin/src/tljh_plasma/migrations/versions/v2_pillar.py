"""Which environments are those of pillar."""

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table("pillar", sa.Column("image", sa.Unicode(512), primary_key=True))


def downgrade():
    op.drop_table("pillar")
