import { Field, Float, ID, InputType, Int, ObjectType, registerEnumType } from '@nestjs/graphql';
import type { FileChange as ChangeView } from '@bulkhead/protocol';
import type { InstanceView } from '@bulkhead/tenancy';
import { AppInput } from '../apps/apps.models.ts';
import { DateTime } from '../graphql/date-time.ts';
import { Instance } from '../instances/instances.models.ts';

@ObjectType({
  description:
    'Opens a stream: the first message on its socket, as {"ticket": "..."}. Used once and within 30 seconds.',
})
export class StreamTicket {
  @Field(() => String, { description: 'As good as a credential: keep it out of logs and URLs.' })
  ticket: string;

  @Field(() => String, {
    nullable: true,
    description:
      'Where its socket is: an address, or a path of the API that gave it; null: its /streams.',
  })
  url: string | null;

  @Field(() => ID, { description: 'The instance that was chosen.' })
  instance: string;

  @Field(() => DateTime, { description: 'It is worth nothing from then on.' })
  expiresAt: Date;
}

@ObjectType({ description: 'A one-off task that was made.' })
export class TaskRun {
  @Field(() => Instance, { description: 'Its instance.' })
  instance: InstanceView;

  @Field(() => StreamTicket, {
    nullable: true,
    description: 'To its standard streams; null when it runs detached.',
  })
  stream: StreamTicket | null;
}

@InputType({ description: 'The terminal that a command is to have.' })
export class TerminalInput {
  @Field(() => String, { description: 'Its kind, as in TERM.' })
  term: string;

  @Field(() => Int, { description: 'Its width.' })
  columns: number;

  @Field(() => Int, { description: 'Its height.' })
  rows: number;
}

@InputType({ description: 'Which instance of an app; any that runs when none is named.' })
export class InstanceChoice extends AppInput {
  @Field(() => ID, { nullable: true, description: 'This one.' })
  instance?: string | null;

  @Field(() => String, { nullable: true, description: 'One of this process.' })
  process?: string | null;
}

@InputType({ description: 'A command in a running instance.' })
export class ExecInput extends InstanceChoice {
  @Field(() => [String], { description: 'The program and its arguments.' })
  command: string[];

  @Field(() => Boolean, { defaultValue: false, description: 'Whether it gets a standard input.' })
  stdin: boolean;

  @Field(() => TerminalInput, { nullable: true, description: 'Null: none, but pipes.' })
  terminal?: TerminalInput | null;
}

@InputType({ description: 'Files of an instance.' })
export class CopyInput extends InstanceChoice {
  @Field(() => String, { description: 'Absolute, in the instance.' })
  path: string;
}

@InputType({ description: 'A port of an instance.' })
export class ForwardPortInput extends InstanceChoice {
  @Field(() => Int, { description: 'Its number.' })
  port: number;
}

@InputType({ description: 'A command that runs once in a new instance.' })
export class RunTaskInput extends AppInput {
  @Field(() => [String], { description: 'The program and its arguments.' })
  command: string[];

  @Field(() => String, {
    nullable: true,
    description: 'Whose settings it has: web, or the first process, when left out.',
  })
  process?: string | null;

  @Field(() => Int, { nullable: true, description: 'Of which release; the current one.' })
  release?: number | null;

  @Field(() => Int, { nullable: true, description: 'Reserved, in thousandths of a core.' })
  cpuMillis?: number | null;

  @Field(() => Int, { nullable: true, description: 'The most, in thousandths of a core.' })
  cpuCapMillis?: number | null;

  @Field(() => Int, { nullable: true, description: 'MiB.' })
  memoryMiB?: number | null;

  @Field(() => Int, { nullable: true, description: 'MiB.' })
  diskMiB?: number | null;

  @Field(() => TerminalInput, { nullable: true, description: 'Null: none, but pipes.' })
  terminal?: TerminalInput | null;

  @Field(() => Boolean, { defaultValue: false, description: 'Whether it gets a standard input.' })
  stdin: boolean;

  @Field(() => Int, { nullable: true, description: 'It is stopped after so long; a day.' })
  timeoutSeconds?: number | null;

  @Field(() => Boolean, { defaultValue: false, description: 'Nobody attaches to it.' })
  detach: boolean;
}

@InputType({ description: 'A one-off task.' })
export class TaskInput extends AppInput {
  @Field(() => ID, { description: 'Its instance.' })
  instance: string;
}

@InputType({ description: 'A one-off task to attach to.' })
export class AttachTaskInput extends TaskInput {
  @Field(() => TerminalInput, { nullable: true, description: 'Of the client, if it has one.' })
  terminal?: TerminalInput | null;
}

export const FileChangeType = { ADDED: 'added', CHANGED: 'changed', DELETED: 'deleted' } as const;
registerEnumType(FileChangeType, {
  name: 'FileChangeType',
  description: 'How a file differs from the image.',
  valuesMap: {
    ADDED: { description: 'The image has it not.' },
    CHANGED: { description: 'The image has another at its place.' },
    DELETED: { description: 'Only the image has it.' },
  },
});

export const FileKind = {
  FILE: 'file',
  DIRECTORY: 'directory',
  SYMLINK: 'symlink',
  OTHER: 'other',
} as const;
registerEnumType(FileKind, {
  name: 'FileKind',
  description: 'What a file is.',
  valuesMap: {
    FILE: { description: 'An ordinary file.' },
    DIRECTORY: { description: 'A directory.' },
    SYMLINK: { description: 'A symbolic link.' },
    OTHER: { description: 'A socket, a FIFO, a device.' },
  },
});

@ObjectType({ description: 'A file that differs from the image.' })
export class FileChange {
  @Field(() => FileChangeType, { description: 'How.' })
  change: ChangeView['change'];

  @Field(() => FileKind, { description: 'What it is, or was.' })
  kind: ChangeView['kind'];

  @Field(() => String, { description: 'Absolute.' })
  path: string;
}

@ObjectType({ description: 'What an instance changed of its image.' })
export class InstanceChanges {
  @Field(() => [FileChange], { description: 'In no order.' })
  changes: ChangeView[];

  @Field(() => Boolean, { description: 'Whether there are more than these.' })
  truncated: boolean;
}

const rate = { nullable: true } as const;

@ObjectType({ description: 'What an instance uses.' })
export class InstanceUsage {
  @Field(() => ID, { description: 'The instance.' })
  instance: string;

  @Field(() => String, { description: 'Its process; `run` for a one-off task.' })
  process: string;

  @Field(() => DateTime, { description: 'When this was.' })
  at: string;

  @Field(() => Float, { ...rate, description: 'Thousandths of a core.' })
  cpuMillis: number | null;

  @Field(() => Int, { description: 'The most that it may use.' })
  cpuCapMillis: number;

  @Field(() => Float, {
    ...rate,
    description: 'Share of the time in which it was held back for its cap, 0 to 1.',
  })
  throttled: number | null;

  @Field(() => Float, { description: 'Bytes, without cache that can be dropped.' })
  memoryBytes: number;

  @Field(() => Float, { description: 'Bytes.' })
  memoryLimitBytes: number;

  @Field(() => Int, { description: 'Processes and threads.' })
  pids: number;

  @Field(() => Int, { description: 'The most that it may have.' })
  pidsLimit: number;

  @Field(() => Float, { ...rate, description: 'From its disks, bytes a second.' })
  readBytesPerSecond: number | null;

  @Field(() => Float, { ...rate, description: 'To its disks, bytes a second.' })
  writtenBytesPerSecond: number | null;

  @Field(() => Float, { ...rate, description: 'From the network, bytes a second.' })
  receivedBytesPerSecond: number | null;

  @Field(() => Float, { ...rate, description: 'To the network, bytes a second.' })
  sentBytesPerSecond: number | null;

  @Field(() => Float, { ...rate, description: 'Written layer, bytes; null: not counted.' })
  diskBytes: number | null;

  @Field(() => Float, { ...rate, description: 'Its limit, bytes.' })
  diskLimitBytes: number | null;
}
