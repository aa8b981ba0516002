"""Names to addresses, under the policy of what may be fetched."""

from __future__ import annotations

import socket

from aiohttp.abc import AbstractResolver, ResolveResult

from modbot.fetch.hosts import ForbiddenAddressError, HostPolicy, is_public


class GuardedResolver(AbstractResolver):
    """Resolves names, and gives no private address for one that `policy` does not allow it."""

    def __init__(self, policy: HostPolicy, resolver: AbstractResolver) -> None:
        self._policy = policy
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if self._policy.may_be_private(host):
            return found
        public = [each for each in found if is_public(each["host"])]
        if not public:
            raise ForbiddenAddressError(f"{host} leads to a private address")
        return public

    async def close(self) -> None:
        await self._resolver.close()
