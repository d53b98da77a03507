import { Field, ID, Int, ObjectType, registerEnumType } from '@nestjs/graphql';
import type { CapacityView, InstanceState as StateName } from '@bulkhead/tenancy';
import { connectionOf } from '../graphql/connection.ts';
import { DateTime } from '../graphql/date-time.ts';
import { InstanceState } from '../instances/instances.models.ts';

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

  @Field(() => String, {
    nullable: true,
    description: 'Version of its agent; null before its first word.',
  })
  agentVersion: string | null;

  @Field(() => DateTime, { nullable: true, description: 'When it was last heard of.' })
  lastSeenAt: Date | null;

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

  @Field(() => InstanceState, { description: 'What was last observed.' })
  state: StateName;

  @Field(() => Int, { description: 'Reserved, in thousandths of a core.' })
  cpuMillis: number;

  @Field(() => Int, { description: 'Reserved, in MiB.' })
  memoryMiB: number;
}

export const NodeInstanceConnection = connectionOf(NodeInstance, 'NodeInstance');
