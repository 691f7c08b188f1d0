"""Objects in S3, MinIO or anything that speaks S3, through the `minio` client."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from mlmesh_kit.errors import InvalidArgument, NotFound, PermissionDenied, Unavailable
from mlmesh_kit.objectstore.base import ObjectInfo, ObjectStore

_PART = 16 << 20


class S3Settings(BaseSettings):
    """Where S3 is: `MLMESH_S3_ENDPOINT`, `_ACCESS_KEY`, `_SECRET_KEY`, `_REGION`, `_SECURE`."""

    model_config = SettingsConfigDict(env_prefix="MLMESH_S3_", extra="ignore")

    endpoint: str = Field("s3.amazonaws.com", description="host:port")
    access_key: str = Field("", description="Empty: anonymous")
    secret_key: SecretStr = Field(SecretStr(""), description="Never shown")
    region: str = Field("us-east-1", description="Of the buckets")
    secure: bool = Field(True, description="TLS")


class S3Store(ObjectStore):
    """Objects in buckets.

    Args:
        settings: Where, and with which keys.
    """

    def __init__(self, settings: S3Settings) -> None:
        self._client = Minio(
            settings.endpoint,
            access_key=settings.access_key or None,
            secret_key=settings.secret_key.get_secret_value() or None,
            region=settings.region,
            secure=settings.secure,
            http_client=urllib3.PoolManager(
                timeout=urllib3.Timeout(connect=3, read=60), retries=urllib3.Retry(2, backoff_factor=0.2)
            ),
        )

    @staticmethod
    def _place(uri: str) -> tuple[str, str]:
        parts = urlsplit(uri)
        key = unquote(parts.path).lstrip("/")
        if parts.scheme not in {"s3", "minio"} or not parts.netloc:
            raise InvalidArgument("must be a URI s3://bucket/key or minio://bucket/key", field="uri")
        if ".." in key.split("/"):
            raise InvalidArgument("must not hold '..'", field="uri")
        return parts.netloc, key

    def put_file(self, path: Path, uri: str) -> ObjectInfo:
        """See ObjectStore; large files go up in parts."""
        bucket, key = self._place(uri)
        with _errors(uri):
            self._client.fput_object(bucket, key, str(path), part_size=_PART)
        return self.stat(uri)

    def put_bytes(self, data: bytes, uri: str) -> ObjectInfo:
        """See ObjectStore."""
        bucket, key = self._place(uri)
        with _errors(uri):
            self._client.put_object(bucket, key, io.BytesIO(data), len(data), part_size=_PART)
        return self.stat(uri)

    def get_file(self, uri: str, path: Path) -> None:
        """See ObjectStore."""
        bucket, key = self._place(uri)
        with _errors(uri):
            self._client.fget_object(bucket, key, str(path))

    def open_read(self, uri: str, offset: int = 0) -> BinaryIO:
        """See ObjectStore."""
        bucket, key = self._place(uri)
        with _errors(uri):
            answer: Any = self._client.get_object(bucket, key, offset=offset)
        stream: BinaryIO = io.BufferedReader(answer, 1 << 20)
        return stream

    def stat(self, uri: str) -> ObjectInfo:
        """See ObjectStore."""
        bucket, key = self._place(uri)
        with _errors(uri):
            found = self._client.stat_object(bucket, key)
        modified = found.last_modified.timestamp() if found.last_modified else 0.0
        return ObjectInfo(uri, int(found.size or 0), modified)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore."""
        bucket, key = self._place(prefix)
        below = key.rstrip("/") + "/" if key else ""
        scheme = urlsplit(prefix).scheme
        with _errors(prefix):
            for found in self._client.list_objects(bucket, prefix=below, recursive=True):
                modified = found.last_modified.timestamp() if found.last_modified else 0.0
                yield ObjectInfo(f"{scheme}://{bucket}/{found.object_name}", int(found.size or 0), modified)

    def delete(self, uri: str) -> None:
        """See ObjectStore."""
        bucket, key = self._place(uri)
        with _errors(uri):
            self._client.remove_object(bucket, key)


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    try:
        yield
    except S3Error as error:
        if error.code in {"NoSuchKey", "NoSuchBucket", "NoSuchObject"}:
            raise NotFound("object", uri) from error
        if error.code in {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}:
            raise PermissionDenied(f"the object store refused access to {uri} ({error.code})") from error
        raise Unavailable(f"the object store answered {error.code}", retry_after_seconds=1) from error
    except ValueError as error:  # the client checks the bucket's and the object's name
        raise InvalidArgument(f"{str(error)[:200]}", field="uri") from error
    except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
        raise Unavailable("the object store cannot be reached", retry_after_seconds=1) from error
