"""Traffic, from and to messages."""

from collections.abc import Callable

from mlmesh_kit.errors import InvalidArgument
from mlmesh_kit.identity import USER_HEADER
from mlmesh_protos.mlmesh.serving.v1 import inference_service_pb2 as pb

from mlmesh_serving.traffic.names import revision_name
from mlmesh_serving.traffic.plan import TAG_LATEST
from mlmesh_serving.traffic.settings import LATEST, HeaderRule, Match, Shadow, Sticky, Target, Traffic


def read_traffic(message: pb.Traffic, number_of: Callable[[str], int]) -> Traffic:
    """Reads what an operator says; `check_traffic` has still to look at it.

    Args:
        message: As it came.
        number_of: Gives the number of a revision by its name, number or tag in use; raises NotFound.

    Raises:
        InvalidArgument: A revision is missing or said twice, or a rule compares nothing.
        NotFound: There is no such revision.
    """
    targets: list[Target] = []
    for index, target in enumerate(message.targets):
        field = f"traffic.targets[{index}]"
        if bool(target.revision_name) == target.latest_revision:
            raise InvalidArgument("must hold one of revision_name, latest_revision", field=field)
        number = number_of(target.revision_name) if target.revision_name else LATEST
        targets.append(Target(number, target.percent, target.tag))
    own = {target.tag: target.revision for target in targets if target.tag}

    def named(revision: str, field: str) -> int:
        if not revision:
            raise InvalidArgument("must name a revision, a tag, or latest", field=field)
        return own[revision] if revision in own else number_of(revision)

    return Traffic(
        targets=tuple(targets),
        rules=tuple(_rule(rule, f"traffic.rules[{index}]", named) for index, rule in enumerate(message.rules)),
        sticky=Sticky((message.sticky.header or USER_HEADER).lower()) if message.HasField("sticky") else None,
        shadow=Shadow(named(message.shadow.revision, "traffic.shadow.revision"), message.shadow.percent)
        if message.HasField("shadow")
        else None,
    )


def _rule(rule: pb.HeaderRule, where: str, named: Callable[[str, str], int]) -> HeaderRule:
    kind = rule.WhichOneof("match")
    if kind is None:
        raise InvalidArgument("must hold one of exact, prefix, regex", field=where)
    number = named(rule.revision, f"{where}.revision")
    return HeaderRule(rule.header.lower(), Match(kind), str(getattr(rule, kind)), number)


def traffic_message(name: str, traffic: Traffic) -> pb.Traffic:
    """Gives it back.

    Args:
        name: Of the InferenceService.
        traffic: What an operator has said.
    """

    def named(revision: int) -> str:
        return TAG_LATEST if revision == LATEST else revision_name(name, revision)

    made = pb.Traffic(
        targets=[
            pb.TrafficTarget(
                revision_name=revision_name(name, target.revision),
                latest_revision=target.revision == LATEST,
                percent=target.percent,
                tag=target.tag,
            )
            for target in traffic.targets
        ]
    )
    for rule in traffic.rules:
        added = made.rules.add(header=rule.header, revision=named(rule.revision))
        setattr(added, rule.match.value, rule.value)
    if traffic.sticky is not None:
        made.sticky.header = traffic.sticky.header
    if traffic.shadow is not None:
        made.shadow.revision, made.shadow.percent = named(traffic.shadow.revision), traffic.shadow.percent
    return made
