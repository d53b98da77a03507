import { Inject } from '@nestjs/common';
import { Args, Mutation, Parent, Query, ResolveField, Resolver } from '@nestjs/graphql';
import { labelList } from '@bulkhead/protocol';
import type { JoinTokenView, NodeView } from '@bulkhead/tenancy';
import { Requires } from '../auth/permissions.ts';
import { PageArguments } from '../graphql/connection.ts';
import type { Controllers } from '../controllers/controllers.ts';
import { CONTROLLERS } from '../controllers/controllers.module.ts';
import { OpenDoor, type Door } from '../graphql/door.ts';
import { Fleet } from './fleet.ts';
import { Label } from './labels.models.ts';
import {
  CreatedJoinToken,
  CreateJoinTokenInput,
  DrainMove,
  JoinToken,
  LabelNodeInput,
  MoveNodeInput,
  Node,
  NodeConnection,
  NodeInput,
  NodeInstanceConnection,
  NodeUse,
  Pool,
  RemoveNodeInput,
  RevokeJoinTokenInput,
  SetPoolInput,
} from './nodes.models.ts';

const fact = { nullable: true } as const;

const tokenModel = (token: JoinTokenView): JoinToken => ({
  ...token,
  labels: labelList(token.labels),
});

@Resolver(() => Node)
export class NodesResolver {
  constructor(
    @Inject(CONTROLLERS) private readonly controllers: Controllers,
    @Inject(Fleet) private readonly fleet: Fleet,
  ) {}

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

  @Query(() => [DrainMove], {
    description: 'What draining a node would do now. For operators.',
  })
  @Requires('node.read')
  async drainPlan(
    @OpenDoor() door: Door,
    @Args('node', { type: () => String, description: 'Its name.' }) name: string,
  ): Promise<DrainMove[]> {
    const node = await door.operator((tx) => tx.nodes.get(name));
    const moves = await this.controllers.planDrain(node.id);
    const names = await door.operator((tx) => tx.nodes.names(moves.flatMap(({ to }) => to ?? [])));
    return moves.map((move) => ({ ...move, to: names.get(move.to ?? '') ?? null }));
  }

  @Mutation(() => Node, {
    description: 'The node gets no new instances; what runs there stays. For operators.',
  })
  @Requires('node.manage')
  cordonNode(
    @OpenDoor() door: Door,
    @Args('input', { description: 'Which node.' }) { node }: NodeInput,
  ) {
    return door.operator((tx) => tx.nodes.setCordoned(node, true));
  }

  @Mutation(() => Node, {
    description: 'The node gets instances again; a drain of it ends. For operators.',
  })
  @Requires('node.manage')
  uncordonNode(
    @OpenDoor() door: Door,
    @Args('input', { description: 'Which node.' }) { node }: NodeInput,
  ) {
    return door.operator((tx) => tx.nodes.setCordoned(node, false));
  }

  @Mutation(() => Node, {
    description:
      'Cordons the node and replaces what runs there, each instance only when its copy elsewhere is ready and routed. For operators.',
  })
  @Requires('node.manage')
  drainNode(
    @OpenDoor() door: Door,
    @Args('input', { description: 'Which node.' }) { node }: NodeInput,
  ) {
    return door.operator((tx) => tx.nodes.setDraining(node, true));
  }

  @Mutation(() => Node, {
    description: 'What is still on the node stays; it remains cordoned. For operators.',
  })
  @Requires('node.manage')
  cancelDrain(
    @OpenDoor() door: Door,
    @Args('input', { description: 'Which node.' }) { node }: NodeInput,
  ) {
    return door.operator((tx) => tx.nodes.setDraining(node, false));
  }

  @Mutation(() => Node, { description: 'Sets and removes labels of a node. For operators.' })
  @Requires('node.manage')
  labelNode(
    @OpenDoor() door: Door,
    @Args('input', { description: 'Which labels.' }) { node, labels }: LabelNodeInput,
  ) {
    const changes = Object.fromEntries(labels.map(({ name, value }) => [name, value ?? null]));
    return door.operator((tx) => tx.nodes.setLabels(node, changes));
  }

  @Mutation(() => Node, {
    description: 'Puts a node into a pool; what runs there stays. For operators.',
  })
  @Requires('node.manage')
  moveNode(
    @OpenDoor() door: Door,
    @Args('input', { description: 'Which pool.' }) { node, pool }: MoveNodeInput,
  ) {
    return door.operator((tx) => tx.nodes.setPool(node, pool));
  }

  @Query(() => [Pool], { description: 'The pools of nodes, by name. For operators.' })
  @Requires('node.read')
  pools(@OpenDoor() door: Door): Promise<Pool[]> {
    return door.operator((tx) => tx.pools.list());
  }

  @Mutation(() => Pool, { description: 'Makes or changes a pool. For operators.' })
  @Requires('node.manage')
  setPool(
    @OpenDoor() door: Door,
    @Args('input', { description: 'What of it.' }) input: SetPoolInput,
  ): Promise<Pool> {
    return door.operator((tx) => tx.pools.set(input));
  }

  @Query(() => [JoinToken], {
    description: 'By which hosts may join, newest first. For operators.',
  })
  @Requires('node.read')
  joinTokens(@OpenDoor() door: Door): Promise<JoinToken[]> {
    return door.operator(async (tx) => (await tx.joining.tokens()).map(tokenModel));
  }

  @Mutation(() => CreatedJoinToken, {
    description: 'Lets one host join the fleet, once. For operators.',
  })
  @Requires('node.manage')
  async createJoinToken(
    @OpenDoor() door: Door,
    @Args('input', { description: 'What the node will be.' }) input: CreateJoinTokenInput,
  ): Promise<CreatedJoinToken> {
    const labels = Object.fromEntries((input.labels ?? []).map(({ name, value }) => [name, value]));
    const { name, pool, ttlMinutes } = input;
    const made = await door.operator((tx) =>
      tx.joining.createToken({ name, pool, ttlMinutes, labels }),
    );
    return { secret: await this.fleet.tokenOf(made.secret), token: tokenModel(made.token) };
  }

  @Mutation(() => Boolean, { description: 'No host can join by it any more. For operators.' })
  @Requires('node.manage')
  async revokeJoinToken(
    @OpenDoor() door: Door,
    @Args('input', { description: 'Which token.' }) { id }: RevokeJoinTokenInput,
  ): Promise<boolean> {
    await door.operator((tx) => tx.joining.revokeToken(id));
    return true;
  }

  @Mutation(() => Boolean, {
    description:
      'Takes a node out of the fleet for good: it is not let in any more. For operators.',
  })
  @Requires('node.manage')
  async removeNode(
    @OpenDoor() door: Door,
    @Args('input', { description: 'Which node.' }) { node, force }: RemoveNodeInput,
  ): Promise<boolean> {
    await door.operator((tx) => tx.nodes.remove(node, force ?? false));
    return true;
  }

  @ResolveField(() => NodeUse, {
    ...fact,
    description: 'What it uses now; null when nothing was heard for ten seconds.',
  })
  @Requires('node.read')
  use(@Parent() node: NodeView): NodeUse | null {
    return this.controllers.nodeUse(node.id);
  }

  @ResolveField(() => [Label], { description: 'By name. `zone` names its failure zone.' })
  @Requires('node.read')
  labels(@Parent() node: NodeView): Label[] {
    return labelList(node.labels);
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

  @ResolveField(() => [String], {
    description:
      'Walls between tenants that it lacks and was told to run without, such as disk-limit; none on a whole node.',
  })
  @Requires('node.read')
  missingWalls(@Parent() node: NodeView): string[] {
    return node.facts.missingWalls ?? [];
  }
}
