"""Images: what an instance may be made of."""

from __future__ import annotations

import sqlalchemy
from sqlalchemy import orm, select
from sqlalchemy.orm import Mapped, mapped_column

from nova.db.session import Base, now

DEFAULT_NAME = "tiny"


class Image(Base):
    """`location` is BUCKET/KEY in the object store; empty for the image that the drivers bring along."""

    __tablename__ = "images"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(sqlalchemy.String(255), index=True)
    name: Mapped[str] = mapped_column(sqlalchemy.String(128))
    description: Mapped[str] = mapped_column(sqlalchemy.String(255), default="")
    location: Mapped[str] = mapped_column(sqlalchemy.String(1100), default="")
    architecture: Mapped[str] = mapped_column(sqlalchemy.String(16), default="x86_64")
    is_public: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[float] = mapped_column(sqlalchemy.Float, default=now())


def ensure_default(s: orm.Session) -> None:
    """A cluster is of use at once: there is one image without registering one."""
    if s.scalar(select(Image.id).limit(1)) is None:
        s.add(Image(project_id="nova", name=DEFAULT_NAME, description="what the driver has", is_public=True))
        s.flush()


def create(s: orm.Session, **values: object) -> Image:
    made = Image(**values)
    s.add(made)
    s.flush()
    return made


def get(s: orm.Session, project_id: str, image_id: int) -> Image | None:
    """An image that the project may use."""
    found = s.get(Image, image_id)
    return found if found and (found.is_public or found.project_id == project_id) else None


def visible(s: orm.Session, project_id: str) -> list[Image]:
    query = select(Image).where(Image.is_public | (Image.project_id == project_id))
    return list(s.scalars(query.order_by(Image.id)))
