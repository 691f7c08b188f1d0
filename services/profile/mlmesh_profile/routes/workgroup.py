"""/api/workgroup: what the front end of Kubeflow's dashboard asks its back end about profiles.

Answers are the dashboard's JSON; errors too: its front end shows the field `error`, which the kit's errors have.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from mlmesh_kit.access import Access, arequire
from mlmesh_kit.errors import AlreadyExists, InvalidArgument, PermissionDenied
from mlmesh_kit.http import route
from mlmesh_kit.identity import current_caller
from mlmesh_kit.names import check_name
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mlmesh_profile.directory import Directory
from mlmesh_profile.profile import Contributor, Profile, check_user
from mlmesh_profile.role import Role

T = TypeVar("T")

MAX_BODY_BYTES = 16 << 10

_WORDS = {Role.VIEW: "viewer", Role.EDIT: "contributor", Role.ADMIN: "owner", Role.OWNER: "owner"}
"""The dashboard's words for KFAM's roles; it takes admin for owner."""

_PLATFORM = {"provider": "mlmesh://", "providerName": "mlmesh", "kubeflowVersion": "unknown", "logoutUrl": "/logout"}


def workgroup_routes(directory: Directory) -> Sequence[Route]:
    """Makes the routes."""
    workgroup = Workgroup(directory)
    return [
        _get("exists", workgroup.exists, Access("get", "users")),
        _get("env-info", workgroup.env_info, Access("get", "users")),
        _get("get-all-namespaces", workgroup.all_namespaces, Access("list", "bindings")),
        _get("get-contributors/{namespace}", workgroup.contributors, Access("list", "contributors", _namespace)),
        _post("create", workgroup.create, Access("create", "profiles")),
        _post("add-contributor/{namespace}", workgroup.add, Access("create", "contributors", _namespace)),
        _delete("remove-contributor/{namespace}", workgroup.remove, Access("delete", "contributors", _namespace)),
        # Which profile that is, only the domain knows; nuke_self asks to delete it once it does.
        _delete("nuke-self", workgroup.nuke_self, Access("get", "users")),
    ]


class Workgroup:
    """The handlers.

    Args:
        directory: Does what is asked; it blocks, so it is called in threads.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def exists(self, request: Request) -> Response:
        """Tells whether the caller has a profile, and whether they may make one."""
        user = current_caller().user
        grants = await _in_thread(self._directory.log_in, user)
        return JSONResponse(
            {
                "user": user.split("@")[0],
                "hasAuth": True,
                "hasWorkgroup": any(role >= Role.ADMIN for role in grants.roles.values()),
                "registrationFlowAllowed": self._directory.registration,
            }
        )

    async def env_info(self, request: Request) -> Response:
        """Tells who the caller is and which namespaces they may use."""
        user = current_caller().user
        grants = await _in_thread(self._directory.log_in, user)
        namespaces = [
            {"namespace": name, "role": _WORDS[role], "user": user} for name, role in sorted(grants.roles.items())
        ]
        administrator = self._directory.is_administrator(user)
        return JSONResponse(
            {"user": user, "platform": _PLATFORM, "namespaces": namespaces, "isClusterAdmin": administrator}
        )

    async def create(self, request: Request) -> Response:
        """Makes a profile: of the name given, or one after the caller's."""
        body = await _body(request)
        caller = current_caller().user
        name, owner = _text(body, "namespace"), _text(body, "user") or caller
        if name:
            await _in_thread(self._directory.create_profile, Profile(check_name(name, "namespace"), owner), caller)
        elif owner != caller:
            raise InvalidArgument("must be given where the profile is for somebody else", field="namespace")
        else:
            name = await _in_thread(self._register, caller)
        return JSONResponse({"message": f"Created namespace {name}"})

    def _register(self, caller: str) -> str:
        if not self._directory.registration and not self._directory.is_administrator(caller):
            raise PermissionDenied("profiles are made by administrators here; ask one")
        before = self._directory.grants(caller, caller).roles
        made = self._directory.create_own_profile(caller, caller).name
        if made in before:
            raise AlreadyExists("profile", made)
        return made

    async def all_namespaces(self, request: Request) -> Response:
        """Lists namespaces with owner and contributors: the caller's, an administrator's all."""
        caller = current_caller().user
        found = await _in_thread(lambda: self._directory.list_bindings(caller, user="", namespace="", role=""))
        rows: dict[str, tuple[list[str], list[str]]] = {}
        for binding in found:
            owners, others = rows.setdefault(binding.namespace, ([], []))
            (owners if binding.role is Role.OWNER else others).append(binding.user)
        return JSONResponse([[name, "".join(owners), ", ".join(others)] for name, (owners, others) in rows.items()])

    async def contributors(self, request: Request) -> Response:
        """Lists the users who may edit a namespace, beside its owner."""
        return await self._contributors(_namespace(request))

    async def add(self, request: Request) -> Response:
        """Makes a user a contributor; gives them all."""
        wanted = await _contributor(request)
        await _in_thread(self._directory.create_contributor, wanted, current_caller().user)
        return await self._contributors(wanted.namespace)

    async def remove(self, request: Request) -> Response:
        """Takes a contributor's role away; gives those who are left."""
        wanted = await _contributor(request)
        await _in_thread(self._directory.delete_contributor, wanted, current_caller().user)
        return await self._contributors(wanted.namespace)

    async def nuke_self(self, request: Request) -> Response:
        """Deletes the profile that is named after the caller."""
        caller = current_caller().user
        name = await _in_thread(self._directory.own_profile, caller)
        await arequire("delete", "profiles", name)
        await _in_thread(self._directory.delete_profile, name, caller)
        return JSONResponse({"message": f"Removed namespace/profile {name}"})

    async def _contributors(self, namespace: str) -> Response:
        caller = current_caller().user
        found = await _in_thread(
            lambda: self._directory.list_bindings(caller, user="", namespace=check_name(namespace), role="edit")
        )
        return JSONResponse([binding.user for binding in found])


def _get(path: str, endpoint: Any, access: Access) -> Route:
    return route(f"/api/workgroup/{path}", endpoint, access=access)


def _post(path: str, endpoint: Any, access: Access) -> Route:
    return route(f"/api/workgroup/{path}", endpoint, access=access, methods=["POST"])


def _delete(path: str, endpoint: Any, access: Access) -> Route:
    return route(f"/api/workgroup/{path}", endpoint, access=access, methods=["DELETE"])


def _namespace(request: Request) -> str:
    return str(request.path_params["namespace"])


async def _body(request: Request) -> dict[str, Any]:
    data = await request.body()
    if len(data) > MAX_BODY_BYTES:
        raise InvalidArgument(f"at most {MAX_BODY_BYTES} bytes", field="body")
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise InvalidArgument("must be JSON", field="body") from error
    if not isinstance(found, dict):
        raise InvalidArgument("must be a JSON object", field="body")
    return found


def _text(body: dict[str, Any], field: str) -> str:
    value = body.get(field) or ""
    if not isinstance(value, str):
        raise InvalidArgument("must be a string", field=field)
    return value


async def _contributor(request: Request) -> Contributor:
    user = check_user(_text(await _body(request), "contributor"), field="contributor")
    return Contributor(check_name(_namespace(request), "namespace"), user, Role.EDIT)


async def _in_thread(function: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.to_thread(function, *arguments)
