import { Field, Float, ID, InputType, Int, ObjectType, registerEnumType } from '@nestjs/graphql';
import type { CapacityView, InstanceState as StateName } from '@bulkhead/tenancy';
import { connectionOf } from '../graphql/connection.ts';
import { DateTime } from '../graphql/date-time.ts';
import { InstanceState } from '../instances/instances.models.ts';
import { Label, NewLabelInput } from './labels.models.ts';

export const NodeState = {
  JOINING: 'joining',
  READY: 'ready',
  SUSPECT: 'suspect',
  LOST: 'lost',
} as const;
registerEnumType(NodeState, {
  name: 'NodeState',
  description: 'What the platform believes of a node.',
  valuesMap: {
    JOINING: { description: 'Known, not heard of yet.' },
    READY: { description: 'Heard of lately.' },
    SUSPECT: { description: 'Silent for a while; nothing is moved yet.' },
    LOST: { description: 'Silent for so long that its instances are placed elsewhere.' },
  },
});

@ObjectType({ description: 'How much a node has, or how much of it is taken.' })
export class Capacity {
  @Field(() => Int, { description: 'Thousandths of a core.' })
  cpuMillis: number;

  @Field(() => Int, { description: 'MiB.' })
  memoryMiB: number;

  @Field(() => Int, { description: 'MiB of writable layers.' })
  diskMiB: number;

  @Field(() => Int, { description: 'Number of instances.' })
  instances: number;
}

@ObjectType({ description: 'What a host as a whole uses now, containers and all.' })
export class NodeUse {
  @Field(() => Int, { description: 'Thousandths of a core, over the last two seconds.' })
  cpuMillis: number;

  @Field(() => Int, { description: 'MiB, without what can be dropped at once.' })
  memoryMiB: number;

  @Field(() => Int, {
    nullable: true,
    description: 'MiB of the pool of writable layers; null where there is none.',
  })
  diskMiB: number | null;

  @Field(() => Float, {
    description: 'Average number of processes that run or want to, over a minute.',
  })
  load: number;
}

@ObjectType({ description: 'A host in the fleet. For operators.' })
export class Node {
  @Field(() => ID, { description: 'Never changes.' })
  id: string;

  @Field(() => String, { description: 'Unique.' })
  name: string;

  @Field(() => String, { description: 'The group of like nodes it belongs to.' })
  pool: string;

  @Field(() => NodeState, { description: 'Whether it is heard of.' })
  state: string;

  @Field(() => Boolean, { description: 'Whether it gets no new instances.' })
  cordoned: boolean;

  @Field(() => Boolean, { description: 'Whether its instances are being replaced elsewhere.' })
  draining: boolean;

  @Field(() => String, {
    nullable: true,
    description: 'Version of its agent; null before its first word.',
  })
  agentVersion: string | null;

  @Field(() => DateTime, { nullable: true, description: 'When it was last heard of.' })
  lastSeenAt: Date | null;

  @Field(() => String, {
    nullable: true,
    description: 'IPv4 address by which other hosts reach it; null for the only host.',
  })
  address: string | null;

  @Field(() => String, { nullable: true, description: 'Addresses of its containers.' })
  network: string | null;

  @Field(() => DateTime, {
    nullable: true,
    description: 'When its certificate ends; its agent renews it before.',
  })
  certificateEndsAt: Date | null;

  @Field(() => DateTime, { description: 'When it was registered.' })
  createdAt: Date;

  @Field(() => Capacity, { description: 'What it has.' })
  capacity: CapacityView;

  @Field(() => Capacity, { description: 'What its instances hold.' })
  reserved: CapacityView;

  @Field(() => Int, { description: 'Instances on it that are not gone.' })
  instanceCount: number;
}

export const NodeConnection = connectionOf(Node, 'Node');

@ObjectType({ description: 'An instance as operators see it on a node.' })
export class NodeInstance {
  @Field(() => ID, { description: 'Also its host name.' })
  id: string;

  @Field(() => String, { description: 'Slug of the tenant.' })
  tenant: string;

  @Field(() => String, { description: 'Name of the app.' })
  app: string;

  @Field(() => String, { description: 'Name of the process.' })
  process: string;

  @Field(() => Boolean, { description: 'Whether it runs once and ends, and is not moved.' })
  oneOff: boolean;

  @Field(() => InstanceState, { description: 'What was last observed.' })
  state: StateName;

  @Field(() => Int, { description: 'Reserved, in thousandths of a core.' })
  cpuMillis: number;

  @Field(() => Int, { description: 'Reserved, in MiB.' })
  memoryMiB: number;
}

@ObjectType({ description: 'What draining a node would do with one of its instances.' })
export class DrainMove {
  @Field(() => ID, { description: 'The instance.' })
  instance: string;

  @Field(() => String, { description: 'Slug of its tenant.' })
  tenant: string;

  @Field(() => String, { description: 'Name of its app.' })
  app: string;

  @Field(() => String, { description: 'Name of its process.' })
  process: string;

  @Field(() => String, {
    nullable: true,
    description: 'Node with room for its copy; null when it would stay.',
  })
  to: string | null;

  @Field(() => String, { nullable: true, description: 'Why it would stay.' })
  why: string | null;
}

@InputType({ description: 'A change of one label.' })
export class LabelInput {
  @Field(() => String, { description: 'What it is about.' })
  name: string;

  @Field(() => String, { nullable: true, description: 'What it says; null removes it.' })
  value?: string | null;
}

@InputType({ description: 'Which node.' })
export class NodeInput {
  @Field(() => String, { description: 'Its name.' })
  node: string;
}

@InputType({ description: 'Which labels of a node to change.' })
export class LabelNodeInput extends NodeInput {
  @Field(() => [LabelInput], { description: 'Those that are not named stay as they are.' })
  labels: LabelInput[];
}

@InputType({ description: 'Which pool a node is to be in.' })
export class MoveNodeInput extends NodeInput {
  @Field(() => String, { description: 'Name of the pool.' })
  pool: string;
}

@ObjectType({ description: 'Nodes that operators keep apart. For operators.' })
export class Pool {
  @Field(() => String, { description: 'Its name.' })
  name: string;

  @Field(() => Float, { description: 'Reserved CPU may reach this many times the cores.' })
  cpuOvercommit: number;

  @Field(() => Boolean, { description: 'Whether every tenant may use it.' })
  open: boolean;

  @Field(() => [String], { description: 'Tenants that may use it though it is not open.' })
  tenants: readonly string[];

  @Field(() => Int, { description: 'How many nodes are in it.' })
  nodes: number;
}

@InputType({ description: 'A change of a pool; what is absent stays.' })
export class SetPoolInput {
  @Field(() => String, { description: 'Its name.' })
  name: string;

  @Field(() => Float, {
    nullable: true,
    description: 'Reserved CPU may reach this many times the cores; 0.1 to 100.',
  })
  cpuOvercommit?: number | null;

  @Field(() => Boolean, { nullable: true, description: 'Whether every tenant may use it.' })
  open?: boolean | null;

  @Field(() => [String], { nullable: true, description: 'Tenants that may use it from now on.' })
  grant?: string[] | null;

  @Field(() => [String], {
    nullable: true,
    description: 'Tenants whose next deploy to it is refused.',
  })
  revoke?: string[] | null;
}

export const NodeInstanceConnection = connectionOf(NodeInstance, 'NodeInstance');

@ObjectType({ description: 'Lets one host join the fleet, once. For operators.' })
export class JoinToken {
  @Field(() => ID, { description: 'For revokeJoinToken.' })
  id: string;

  @Field(() => String, {
    nullable: true,
    description: 'Name that the node gets; null for its own choice.',
  })
  name: string | null;

  @Field(() => String, { description: 'Pool that the node gets into.' })
  pool: string;

  @Field(() => [Label], { description: 'Labels that the node gets.' })
  labels: Label[];

  @Field(() => String, { description: 'Email of who made it.' })
  createdBy: string;

  @Field(() => DateTime, { description: 'When it was made.' })
  createdAt: Date;

  @Field(() => DateTime, { description: 'When it ends.' })
  expiresAt: Date;

  @Field(() => DateTime, { nullable: true, description: 'When a host joined by it.' })
  usedAt: Date | null;
}

@ObjectType({ description: 'A new join token.' })
export class CreatedJoinToken {
  @Field(() => String, { description: 'For the host; shown this once.' })
  secret: string;

  @Field(() => JoinToken, { description: 'What is kept of it.' })
  token: JoinToken;
}

@InputType({ description: 'A join token to be made.' })
export class CreateJoinTokenInput {
  @Field(() => String, {
    nullable: true,
    description: 'Name that the node gets; absent for its own choice.',
  })
  name?: string | null;

  @Field(() => String, { nullable: true, description: 'default when absent.' })
  pool?: string | null;

  @Field(() => [NewLabelInput], { nullable: true, description: 'Labels that the node gets.' })
  labels?: NewLabelInput[] | null;

  @Field(() => Int, { nullable: true, description: '1 to 10080; 60 when absent.' })
  ttlMinutes?: number | null;
}

@InputType({ description: 'Which join token.' })
export class RevokeJoinTokenInput {
  @Field(() => ID, { description: 'Of the token.' })
  id: string;
}

@InputType({ description: 'A node to be taken out of the fleet for good.' })
export class RemoveNodeInput extends NodeInput {
  @Field(() => Boolean, {
    nullable: true,
    description: 'Also with instances on it: they are lost with it and are replaced elsewhere.',
  })
  force?: boolean | null;
}
