import { Field, Float, InputType, Int, ObjectType, registerEnumType } from '@nestjs/graphql';
import type {
  HealthCheck as HealthCheckView,
  ProcessPriority,
  ProcessProtocol,
} from '@bulkhead/protocol';
import { Label, NewLabelInput } from '../nodes/labels.models.ts';

export const HealthCheckKind = { HTTP: 'http', TCP: 'tcp', COMMAND: 'command' } as const;
registerEnumType(HealthCheckKind, {
  name: 'HealthCheckKind',
  description: 'How health is asked for.',
  valuesMap: {
    HTTP: { description: 'GET of `path`; 200 to 399 is healthy.' },
    TCP: { description: 'A connection to the port.' },
    COMMAND: { description: '`command` in the container; exit code 0 is healthy.' },
  },
});

export const ProcessPriorityEnum = { LOW: 'low', NORMAL: 'normal', HIGH: 'high' } as const;
registerEnumType(ProcessPriorityEnum, {
  name: 'ProcessPriority',
  description: 'Whose instances make room for whose when the fleet is full.',
  valuesMap: {
    LOW: { description: 'Makes room for everything else.' },
    NORMAL: { description: 'Makes room for HIGH only.' },
    HIGH: { description: 'Makes room for nothing. An operator grants so many instances of it.' },
  },
});

export const ProcessProtocolEnum = { HTTP1: 'http1', HTTP2: 'http2' } as const;
registerEnumType(ProcessProtocolEnum, {
  name: 'ProcessProtocol',
  description: 'How the edge asks a process.',
  valuesMap: {
    HTTP1: { description: 'In HTTP/1.1, whatever the visitor speaks.' },
    HTTP2: { description: 'In HTTP/2 without TLS, at once, as gRPC servers expect it.' },
  },
});

@ObjectType({ description: 'Decides when an instance is ready, and when it must be restarted.' })
export class HealthCheck {
  @Field(() => HealthCheckKind, { description: 'How it asks.' })
  kind: 'http' | 'tcp' | 'command';

  @Field(() => String, { nullable: true, description: 'What is fetched; null unless HTTP.' })
  path?: string | null;

  @Field(() => [String], { nullable: true, description: 'What is run; null unless COMMAND.' })
  command?: readonly string[] | null;

  @Field(() => Float, { description: 'Seconds between two checks.' })
  intervalSeconds: number;

  @Field(() => Float, { description: 'Seconds until no answer is a failure.' })
  timeoutSeconds: number;

  @Field(() => Int, { description: 'Failures in a row after which it is restarted.' })
  failureThreshold: number;

  @Field(() => Int, { description: 'Successes in a row after which it is ready.' })
  successThreshold: number;

  @Field(() => Float, { description: 'Seconds after the start in which failures do not count.' })
  startupGraceSeconds: number;
}

@ObjectType({ description: 'A kind of instance that an app consists of.' })
export class Process {
  @Field(() => String, { description: 'Its name; `web` gets a route.' })
  name: string;

  @Field(() => Int, { description: 'How many instances are wanted.' })
  count: number;

  @Field(() => Int, { description: 'How many instances are ready.' })
  ready: number;

  @Field(() => [String], {
    nullable: true,
    description: "What it runs; null for the image's own command.",
  })
  command: readonly string[] | null;

  @Field(() => Int, { nullable: true, description: 'What it listens on; null for a worker.' })
  port: number | null;

  @Field(() => Int, { description: 'Reserved CPU, in thousandths of a core.' })
  cpuMillis: number;

  @Field(() => Int, { description: 'Memory, reserved and at most. MiB.' })
  memoryMiB: number;

  @Field(() => Int, { description: 'Size of the writable layer. MiB.' })
  diskMiB: number;

  @Field(() => Int, { description: 'The most CPU, in thousandths of a core.' })
  cpuCapMillis: number;

  @Field(() => Int, { description: 'The most processes and threads.' })
  pids: number;

  @Field(() => Int, { description: 'The most from and to its disks each, bytes a second.' })
  ioBytesPerSecond: number;

  @Field(() => Int, {
    description: 'The most operations on its disks, reading and writing each, a second.',
  })
  ioOperationsPerSecond: number;

  @Field(() => Int, { description: 'The most from and to the network each, bytes a second.' })
  networkBytesPerSecond: number;

  @Field(() => Int, {
    description:
      'The most output that is kept, bytes a second; what is more is dropped and counted.',
  })
  logBytesPerSecond: number;

  @Field(() => ProcessProtocolEnum, { description: 'How the edge asks it.' })
  protocol: ProcessProtocol;

  @Field(() => Boolean, { description: 'Whether only /tmp, in memory, can be written.' })
  readOnlyRoot: boolean;

  @Field(() => Int, { description: 'The most instances on one node; 0: as many as fit.' })
  mostPerNode: number;

  @Field(() => ProcessPriorityEnum, {
    description: 'When the fleet is full, the lower makes room for the higher.',
  })
  priority: ProcessPriority;

  @Field(() => String, { description: 'The pool of nodes on which it runs.' })
  pool: string;

  @Field(() => [Label], { description: 'What a node must have to run it.' })
  nodeLabels: readonly Label[];

  @Field(() => HealthCheck, { nullable: true, description: 'How its health is checked.' })
  healthCheck: HealthCheckView | null;
}

@InputType({ description: 'A health check; what is left out has the defaults.' })
export class HealthCheckInput {
  @Field(() => HealthCheckKind, { description: 'How it asks.' })
  kind: 'http' | 'tcp' | 'command';

  @Field(() => String, { nullable: true, description: 'What is fetched; for HTTP only.' })
  path?: string | null;

  @Field(() => [String], {
    nullable: true,
    description: 'What is run in the container; for COMMAND only.',
  })
  command?: string[] | null;

  @Field(() => Float, {
    nullable: true,
    description: 'Seconds between two checks; when absent 2, and 10 for COMMAND.',
  })
  intervalSeconds?: number | null;

  @Field(() => Float, {
    nullable: true,
    description: 'Seconds until no answer is a failure; when absent 2, and 5 for COMMAND.',
  })
  timeoutSeconds?: number | null;

  @Field(() => Int, {
    nullable: true,
    description: 'Failures in a row until the restart; 3 when absent.',
  })
  failureThreshold?: number | null;

  @Field(() => Int, {
    nullable: true,
    description: 'Successes in a row until it is ready; 1 when absent.',
  })
  successThreshold?: number | null;

  @Field(() => Float, {
    nullable: true,
    description: 'Seconds after the start in which failures do not count; 30 when absent.',
  })
  startupGraceSeconds?: number | null;
}

@InputType({
  description:
    'A process to be deployed. What is left out stays as in the release before, or has the default.',
})
export class ProcessInput {
  @Field(() => String, { description: 'Its name; `web` gets a route.' })
  name: string;

  @Field(() => [String], {
    nullable: true,
    description: "Replaces the image's entrypoint and command; null for the image's own.",
  })
  command?: string[] | null;

  @Field(() => Int, {
    nullable: true,
    description: 'What it listens on, given to it as PORT; null for none.',
  })
  port?: number | null;

  @Field(() => Int, { nullable: true, description: 'How many instances; 1 when new.' })
  count?: number | null;

  @Field(() => Int, { nullable: true, description: 'Reserved CPU, in thousandths of a core.' })
  cpuMillis?: number | null;

  @Field(() => Int, { nullable: true, description: 'The most CPU, in thousandths of a core.' })
  cpuCapMillis?: number | null;

  @Field(() => Int, { nullable: true, description: 'Memory, reserved and at most. MiB.' })
  memoryMiB?: number | null;

  @Field(() => Int, { nullable: true, description: 'Size of the writable layer. MiB.' })
  diskMiB?: number | null;

  @Field(() => Int, { nullable: true, description: 'The most processes and threads.' })
  pids?: number | null;

  @Field(() => Int, {
    nullable: true,
    description: 'The most from and to its disks each, bytes a second.',
  })
  ioBytesPerSecond?: number | null;

  @Field(() => Int, {
    nullable: true,
    description: 'The most operations on its disks, reading and writing each, a second.',
  })
  ioOperationsPerSecond?: number | null;

  @Field(() => Int, {
    nullable: true,
    description: 'The most from and to the network each, bytes a second.',
  })
  networkBytesPerSecond?: number | null;

  @Field(() => Int, {
    nullable: true,
    description:
      'The most output that is kept, bytes a second; what is more is dropped and counted.',
  })
  logBytesPerSecond?: number | null;

  @Field(() => ProcessProtocolEnum, {
    nullable: true,
    description: 'How the edge asks it; HTTP1 unless said.',
  })
  protocol?: ProcessProtocol | null;

  @Field(() => Boolean, {
    nullable: true,
    description: 'Whether only /tmp, in memory, can be written.',
  })
  readOnlyRoot?: boolean | null;

  @Field(() => Int, {
    nullable: true,
    description: 'The most instances on one node; 0: as many as fit.',
  })
  mostPerNode?: number | null;

  @Field(() => ProcessPriorityEnum, {
    nullable: true,
    description:
      'When the fleet is full, the lower makes room for the higher. HIGH is counted by the quota highPriority.',
  })
  priority?: ProcessPriority | null;

  @Field(() => String, {
    nullable: true,
    description:
      'The pool of nodes on which it runs; others than default are granted by operators.',
  })
  pool?: string | null;

  @Field(() => [NewLabelInput], {
    nullable: true,
    description: 'What a node must have to run it; an empty list: nothing.',
  })
  nodeLabels?: NewLabelInput[] | null;

  @Field(() => Int, { nullable: true, description: 'Seconds from SIGTERM to SIGKILL.' })
  graceSeconds?: number | null;

  @Field(() => HealthCheckInput, {
    nullable: true,
    description: 'How its health is checked; null for not.',
  })
  healthCheck?: HealthCheckInput | null;
}
