import { Args, Context, Parent, ResolveField, Resolver } from '@nestjs/graphql';
import { labelList, type ProcessDefinition } from '@bulkhead/protocol';
import type { AppStatus, AppView, ProcessView, ReleaseView } from '@bulkhead/tenancy';
import { App } from '../apps/apps.models.ts';
import { Process } from '../apps/processes.models.ts';
import { Requires } from '../auth/permissions.ts';
import { PageArguments } from '../graphql/connection.ts';
import { OpenDoor, type Door, type Owned } from '../graphql/door.ts';
import type { RequestContext } from '../graphql/request-context.ts';
import { Release, ReleaseConnection } from './releases.models.ts';

@Resolver(() => Release)
export class ReleasesResolver {
  @ResolveField(() => [Process], {
    description: 'Its processes. Counts are not part of a release: those of the app now.',
  })
  @Requires('app.read')
  async processes(@Context() request: RequestContext, @Parent() release: Owned<ReleaseView>) {
    const status = await request.loaders.status({ tenantId: release.tenantId, id: release.appId });
    return release.processes.map((definition) => toProcess(definition, release.current, status));
  }
}

function toProcess(
  definition: ProcessDefinition,
  current: boolean,
  status: AppStatus,
): ProcessView {
  const now = status.processes.find(({ name }) => name === definition.name);
  return {
    name: definition.name,
    command: definition.command,
    port: definition.port,
    protocol: definition.protocol,
    healthCheck: definition.health,
    ...definition.resources,
    readOnlyRoot: definition.readOnlyRoot,
    mostPerNode: definition.mostPerNode,
    priority: definition.priority,
    pool: definition.pool,
    nodeLabels: labelList(definition.nodeLabels),
    count: now?.count ?? 0,
    ready: current ? (now?.ready ?? 0) : 0,
  };
}

@Resolver(() => App)
export class AppReleasesResolver {
  @ResolveField(() => Release, {
    nullable: true,
    description: 'What should run; null before the first deploy.',
  })
  @Requires('app.read')
  currentRelease(@Context() request: RequestContext, @Parent() app: AppView) {
    return request.loaders.release(app.tenantId, app.currentReleaseId);
  }

  @ResolveField(() => ReleaseConnection, { description: 'Its releases, newest first.' })
  @Requires('app.read')
  releases(@OpenDoor() door: Door, @Parent() app: AppView, @Args() page: PageArguments) {
    return door.list({ tenantId: app.tenantId }, (tx) => tx.releases.list(app.id, page));
  }
}
