"""Objects in S3, MinIO or anything that speaks S3, through the `minio` client."""

import datetime
import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlsplit

import urllib3
from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from mlmesh_kit.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, Unavailable
from mlmesh_kit.objectstore.base import ObjectInfo, ObjectStore, Seen, below

_PART = 16 << 20
_MOST_PARTS = 10_000
_CONNECTIONS = 16
_MISSING = {"NoSuchKey", "NoSuchObject", "NoSuchVersion"}
_REFUSED = {
    "AccessDenied",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
}
_TRY_AGAIN = {408, 429}


class S3Settings(BaseSettings):
    """Where S3 is: `MLMESH_S3_ENDPOINT`, `_ACCESS_KEY`, `_SECRET_KEY`, `_REGION`, `_SECURE`, `_PUBLIC_ENDPOINT`."""

    model_config = SettingsConfigDict(env_prefix="MLMESH_S3_", extra="ignore")

    endpoint: str = Field("s3.amazonaws.com", description="host:port")
    access_key: str = Field("", description="Empty: anonymous")
    secret_key: SecretStr = Field(SecretStr(""), description="Never shown")
    region: str = Field("us-east-1", description="Of the buckets")
    secure: bool = Field(True, description="TLS")
    public_endpoint: str = Field("", description="host:port that presigned links name; empty: the endpoint")

    @property
    def is_configured(self) -> bool:
        """Whether anybody has said anything of S3."""
        return bool(self.model_fields_set)


class S3Store(ObjectStore):
    """Objects in buckets.

    Args:
        settings: Where, and with which keys.
    """

    def __init__(self, settings: S3Settings) -> None:
        self._client = _client(settings, settings.endpoint)
        self._has_keys = bool(settings.access_key)
        elsewhere = settings.public_endpoint
        self._signer = _client(settings, elsewhere) if elsewhere else self._client

    @staticmethod
    def _place(uri: str) -> tuple[str, str]:
        parts = urlsplit(uri)
        key = unquote(parts.path).lstrip("/")
        if parts.scheme not in {"s3", "minio"} or not parts.netloc:
            raise InvalidArgument("must be a URI s3://bucket/key or minio://bucket/key", field="uri")
        if ".." in key.split("/"):
            raise InvalidArgument("must not hold '..'", field="uri")
        return parts.netloc, key

    def put_file(self, path: Path, uri: str, seen: Seen | None = None) -> ObjectInfo:
        """See ObjectStore; large files go up in parts, and what fails leaves none."""
        with path.open("rb") as file:
            return self._put(file, os.fstat(file.fileno()).st_size, uri, seen)

    def put_bytes(self, data: bytes, uri: str) -> ObjectInfo:
        """See ObjectStore."""
        return self._put(io.BytesIO(data), len(data), uri, None)

    def _put(self, source: BinaryIO, size: int, uri: str, seen: Seen | None) -> ObjectInfo:
        bucket, key = self._place(uri)
        with _errors(uri):
            written = self._client.put_object(
                bucket,
                key,
                _Watched(source, seen),
                size,
                part_size=max(_PART, -(-size // _MOST_PARTS)),
                num_parallel_uploads=1,  # else the client's threads stay for ever when an upload is ended from here
            )
        return ObjectInfo(uri, size, time.time(), _bare(written.etag))

    def open_read(self, uri: str, offset: int = 0, length: int | None = None) -> BinaryIO:
        """See ObjectStore."""
        bucket, key = self._place(uri)
        if length == 0:
            self.stat(uri)
            return io.BytesIO()
        try:
            with _errors(uri):
                answer: Any = self._client.get_object(bucket, key, offset=offset, length=length or 0)
        except _BeyondTheEnd:
            return io.BytesIO()
        return io.BufferedReader(_Body(answer, uri), 1 << 20)

    def stat(self, uri: str) -> ObjectInfo:
        """See ObjectStore."""
        bucket, key = self._place(uri)
        with _errors(uri):
            return _info(self._client.stat_object(bucket, key), uri)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore."""
        bucket, key = self._place(prefix)
        folder = key.rstrip("/") + "/" if key else ""
        with _errors(prefix):
            for found in self._client.list_objects(bucket, prefix=folder, recursive=True):
                if not found.is_dir and not found.object_name.endswith("/"):  # some tools write markers for folders
                    yield _info(found, below(prefix, found.object_name.removeprefix(folder)))

    def delete(self, uri: str) -> None:
        """See ObjectStore."""
        bucket, key = self._place(uri)
        with _errors(uri):
            self._client.remove_object(bucket, key)

    def delete_tree(self, uri: str) -> int:
        """See ObjectStore."""
        bucket, _ = self._place(uri)
        keys = [self._place(info.uri)[1] for info in self.list(uri)]
        with _errors(uri):
            for fault in self._client.remove_objects(bucket, map(DeleteObject, keys)):
                raise Unavailable(f"the object store did not delete all below {uri} ({fault.code})")
        return len(keys)

    def abort_uploads(self, prefix: str) -> int:
        """See ObjectStore."""
        bucket, key = self._place(prefix)
        with _errors(prefix):  # the client has no public names for these two
            found = self._client._list_multipart_uploads(bucket, prefix=key)
            ours = [one for one in found.uploads if f"{one.object_name}/".startswith(f"{key.rstrip('/')}/")]
            for one in ours:
                self._client._abort_multipart_upload(bucket, one.object_name, one.upload_id)
        return len(ours)

    def presigned_url(self, uri: str, seconds: int, filename: str = "") -> str:
        """See ObjectStore."""
        bucket, key = self._place(uri)
        if not self._has_keys:
            raise FailedPrecondition("links are signed, and the service has no keys of the object store")
        shown = {"response-content-disposition": f"attachment; filename*=utf-8''{quote(filename)}"} if filename else {}
        with _errors(uri):
            url: str = self._signer.presigned_get_object(
                bucket, key, datetime.timedelta(seconds=seconds), response_headers=shown
            )
        return url


class _Watched(io.RawIOBase):
    """What is sent, shown to somebody as it goes."""

    def __init__(self, source: BinaryIO, seen: Seen | None) -> None:
        self._source = source
        self._seen = seen

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        if self._seen is not None and data:
            self._seen(data)
        return data


class _Body(io.RawIOBase):
    """What comes, with the store's errors as ours."""

    def __init__(self, answer: Any, uri: str) -> None:
        self._answer = answer
        self._uri = uri

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with _errors(self._uri):
            data: bytes = self._answer.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._answer.close()
            self._answer.release_conn()
        super().close()


class _BeyondTheEnd(Exception):
    """The first byte that was asked for is behind the last."""


def _client(settings: S3Settings, endpoint: str) -> Any:
    return Minio(
        endpoint,
        access_key=settings.access_key or None,
        secret_key=settings.secret_key.get_secret_value() or None,
        region=settings.region,
        secure=settings.secure,
        http_client=urllib3.PoolManager(
            maxsize=_CONNECTIONS,
            timeout=urllib3.Timeout(connect=3, read=60),
            retries=urllib3.Retry(2, backoff_factor=0.2),
        ),
    )


def _info(found: Any, uri: str) -> ObjectInfo:
    modified = found.last_modified.timestamp() if found.last_modified else 0.0
    return ObjectInfo(uri, int(found.size or 0), modified, _bare(found.etag))


def _bare(etag: str | None) -> str:
    return (etag or "").strip('"')


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    try:
        yield
    except S3Error as error:
        raise _translated(error, uri) from error
    except ValueError as error:  # the client checks the bucket's and the object's name
        raise InvalidArgument(f"{str(error)[:200]}", field="uri") from error
    except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
        raise Unavailable("the object store cannot be reached", retry_after_seconds=1) from error


def _translated(error: S3Error, uri: str) -> Exception:
    status = getattr(error.response, "status", 500)
    if error.code in _MISSING:
        return NotFound("object", uri)
    if error.code == "NoSuchBucket":
        return NotFound("bucket", urlsplit(uri).netloc)
    if error.code == "InvalidRange":
        return _BeyondTheEnd()
    if error.code in _REFUSED or status in {401, 403}:
        return PermissionDenied(f"the object store refused access to {uri} ({error.code})")
    if status >= 500 or status in _TRY_AGAIN:
        return Unavailable(f"the object store answered {error.code}", retry_after_seconds=1)
    return FailedPrecondition(f"the object store refused {uri} ({error.code})")
