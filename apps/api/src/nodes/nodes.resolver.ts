import { Args, Parent, Query, ResolveField, Resolver } from '@nestjs/graphql';
import type { NodeView } from '@bulkhead/tenancy';
import { Requires } from '../auth/permissions.ts';
import { PageArguments } from '../graphql/connection.ts';
import { OpenDoor, type Door } from '../graphql/door.ts';
import { Node, NodeConnection, NodeInstanceConnection } from './nodes.models.ts';

const fact = { nullable: true } as const;

@Resolver(() => Node)
export class NodesResolver {
  @Query(() => NodeConnection, { description: 'The fleet, by name. For operators.' })
  @Requires('node.read')
  nodes(@OpenDoor() door: Door, @Args() page: PageArguments) {
    return door.operator((tx) => tx.nodes.list(page));
  }

  @Query(() => Node, { description: 'A host of the fleet. For operators.' })
  @Requires('node.read')
  node(
    @OpenDoor() door: Door,
    @Args('name', { type: () => String, description: 'Its name.' }) name: string,
  ) {
    return door.operator((tx) => tx.nodes.get(name));
  }

  @ResolveField(() => NodeInstanceConnection, { description: 'Instances on it that are not gone.' })
  @Requires('node.read')
  instances(@OpenDoor() door: Door, @Parent() node: NodeView, @Args() page: PageArguments) {
    return door.operator((tx) => tx.nodes.instances(node.id, page));
  }

  @ResolveField(() => String, { ...fact, description: 'Its kernel; null before its first word.' })
  @Requires('node.read')
  kernel(@Parent() node: NodeView) {
    return node.facts.kernel;
  }

  @ResolveField(() => String, { ...fact, description: 'Its operating system.' })
  @Requires('node.read')
  os(@Parent() node: NodeView) {
    return node.facts.os;
  }

  @ResolveField(() => String, { ...fact, description: 'Which cgroups it has: v1, hybrid or v2.' })
  @Requires('node.read')
  cgroup(@Parent() node: NodeView) {
    return node.facts.cgroup;
  }

  @ResolveField(() => String, { ...fact, description: 'Version of crun.' })
  @Requires('node.read')
  crun(@Parent() node: NodeView) {
    return node.facts.crun;
  }

  @ResolveField(() => String, { ...fact, description: 'Version of conmon.' })
  @Requires('node.read')
  conmon(@Parent() node: NodeView) {
    return node.facts.conmon;
  }

  @ResolveField(() => String, {
    ...fact,
    description: 'How the disk limit is enforced: btrfs or none.',
  })
  @Requires('node.read')
  diskLimit(@Parent() node: NodeView) {
    return node.facts.diskLimit;
  }
}
