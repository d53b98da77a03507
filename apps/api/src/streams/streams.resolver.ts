import { Inject } from '@nestjs/common';
import { Args, Context, Float, ID, Mutation, Query, Resolver, Subscription } from '@nestjs/graphql';
import { invalid, openStream, type OpenStream } from '@bulkhead/protocol';
import type { InstancePlace, Permission } from '@bulkhead/tenancy';
import { Requires } from '../auth/permissions.ts';
import { OpenDoor, type Door } from '../graphql/door.ts';
import type { RequestContext } from '../graphql/request-context.ts';
import { Instance } from '../instances/instances.models.ts';
import { SETTINGS, type Settings } from '../settings.ts';
import { Readings } from './readings.ts';
import {
  AttachTaskInput,
  CopyInput,
  ExecInput,
  ForwardPortInput,
  InstanceChanges,
  InstanceUsage,
  RunTaskInput,
  StreamTicket,
  TaskInput,
  TaskRun,
  type InstanceChoice,
} from './streams.models.ts';
import { sizeOf, Tickets } from './tickets.ts';

/** How long a forwarded port may be used by one ticket. Milliseconds. */
const forwardMs = 12 * 3_600_000;

/** Where a stream goes, and for whom. */
interface Target {
  readonly tenantId: string;
  readonly appId: string;
  readonly instance: string;
  readonly node: string | null;
}

@Resolver()
export class StreamsResolver {
  constructor(
    @Inject(Tickets) private readonly tickets: Tickets,
    @Inject(Readings) private readonly readings: Readings,
    @Inject(SETTINGS) private readonly settings: Settings,
  ) {}

  @Mutation(() => StreamTicket, { description: 'Runs a command in a running instance.' })
  @Requires('instance.exec')
  async exec(
    @OpenDoor() door: Door,
    @Context() request: RequestContext,
    @Args('input', { type: () => ExecInput, description: 'What, and where.' }) input: ExecInput,
  ): Promise<StreamTicket> {
    const { command, stdin } = input;
    const terminal = input.terminal
      ? { term: input.terminal.term, size: sizeOf(input.terminal) }
      : null;
    return this.#open(door, request, 'instance.exec', input, { command }, (instance) =>
      checked({ kind: 'exec', instance, command, stdin, terminal }),
    );
  }

  @Mutation(() => StreamTicket, { description: 'A tar archive of a file or directory.' })
  @Requires('instance.copy')
  copyFromInstance(
    @OpenDoor() door: Door,
    @Context() request: RequestContext,
    @Args('input', { type: () => CopyInput, description: 'Which.' }) input: CopyInput,
  ): Promise<StreamTicket> {
    const { path } = input;
    return this.#open(door, request, 'instance.copy', input, { from: path }, (instance) =>
      checked({ kind: 'copy-out', instance, path }),
    );
  }

  @Mutation(() => StreamTicket, {
    description:
      'Takes a tar archive into a directory, or under that name into the directory above.',
  })
  @Requires('instance.copy')
  copyToInstance(
    @OpenDoor() door: Door,
    @Context() request: RequestContext,
    @Args('input', { type: () => CopyInput, description: 'Where to.' }) input: CopyInput,
  ): Promise<StreamTicket> {
    const { path } = input;
    return this.#open(door, request, 'instance.copy', input, { to: path }, (instance) =>
      checked({ kind: 'copy-in', instance, path }),
    );
  }

  @Mutation(() => StreamTicket, {
    description:
      'Connections to a port of an instance. This ticket opens a socket for each, for 12 hours.',
  })
  @Requires('instance.forward')
  forwardPort(
    @OpenDoor() door: Door,
    @Context() request: RequestContext,
    @Args('input', { type: () => ForwardPortInput, description: 'Which.' })
    input: ForwardPortInput,
  ): Promise<StreamTicket> {
    const { port } = input;
    const make = (instance: string) => checked({ kind: 'forward', instance, port });
    const until = this.tickets.after(forwardMs);
    return this.#open(door, request, 'instance.forward', input, { port }, make, until);
  }

  @Mutation(() => TaskRun, { description: 'Runs a command once, in a new instance of the app.' })
  @Requires('task.run')
  async runTask(
    @OpenDoor() door: Door,
    @Context() request: RequestContext,
    @Args('input', { type: () => RunTaskInput, description: 'What.' }) input: RunTaskInput,
  ): Promise<TaskRun> {
    const { terminal, detach } = input;
    if (detach && (terminal || input.stdin))
      throw invalid('a detached task has neither a terminal nor a standard input');
    const made = await door.get({ tenant: input.tenant }, (tx) =>
      tx.tasks.run({ ...input, terminal: Boolean(terminal) }),
    );
    if (detach) return { instance: made, stream: null };
    const { tenantId, appId, id: instance } = made;
    const size = terminal ? sizeOf(terminal) : null;
    const open = checked({ kind: 'attach', instance, size });
    const target = { tenantId, appId, instance, node: null };
    return { instance: made, stream: this.#ticket(door, request, 'task.run', target, open) };
  }

  @Mutation(() => StreamTicket, { description: 'The standard streams of a one-off task.' })
  @Requires('task.run')
  async attachTask(
    @OpenDoor() door: Door,
    @Context() request: RequestContext,
    @Args('input', { type: () => AttachTaskInput, description: 'Which.' }) input: AttachTaskInput,
  ): Promise<StreamTicket> {
    const task = await door.get({ tenant: input.tenant }, (tx) => tx.tasks.attach(input));
    const { tenantId, appId, id: instance } = task;
    const size = input.terminal ? sizeOf(input.terminal) : null;
    const open = checked({ kind: 'attach', instance, size });
    return this.#ticket(door, request, 'task.run', { tenantId, appId, instance, node: null }, open);
  }

  @Mutation(() => Instance, { description: 'Ends a one-off task; one that has ended stays so.' })
  @Requires('task.run')
  stopTask(
    @OpenDoor() door: Door,
    @Args('input', { type: () => TaskInput, description: 'Which.' }) input: TaskInput,
  ) {
    return door.run({ tenant: input.tenant }, (tx) => tx.tasks.stop(input));
  }

  @Query(() => InstanceChanges, { description: 'Files of an instance that differ from its image.' })
  @Requires('instance.inspect')
  async instanceChanges(
    @OpenDoor() door: Door,
    @Args('tenant', { type: () => String, description: 'Slug of the tenant.' }) tenant: string,
    @Args('app', { type: () => String, description: 'Name of the app.' }) app: string,
    @Args('instance', { type: () => ID, description: 'Which.' }) instance: string,
  ): Promise<InstanceChanges> {
    const place = await door.run({ tenant }, async (tx) =>
      tx.instances.locate((await tx.apps.get(app)).id, { instance }),
    );
    return this.readings.changes(place);
  }

  @Query(() => [InstanceUsage], {
    name: 'usage',
    description: 'What the running instances of an app use; takes a second, for the rates.',
  })
  @Requires('instance.inspect')
  readUsage(
    @OpenDoor() door: Door,
    @Args('tenant', { type: () => String, description: 'Slug of the tenant.' }) tenant: string,
    @Args('app', { type: () => String, description: 'Name of the app.' }) app: string,
  ) {
    return this.readings.usage(() => running(door, tenant, app));
  }

  @Subscription(() => [InstanceUsage], {
    name: 'usage',
    description: 'What the running instances of an app use, again and again.',
  })
  @Requires('instance.inspect')
  followUsage(
    @OpenDoor() door: Door,
    @Args('tenant', { type: () => String, description: 'Slug of the tenant.' }) tenant: string,
    @Args('app', { type: () => String, description: 'Name of the app.' }) app: string,
    @Args('intervalSeconds', {
      type: () => Float,
      defaultValue: 2,
      description: 'From 1 to 60.',
    })
    intervalSeconds: number,
  ) {
    if (!(intervalSeconds >= 1 && intervalSeconds <= 60))
      throw invalid('intervalSeconds: from 1 to 60');
    return this.readings.follow(() => running(door, tenant, app), intervalSeconds * 1000);
  }

  async #open(
    door: Door,
    request: RequestContext,
    permission: Permission & `instance.${string}`,
    input: InstanceChoice,
    what: { command: readonly string[] } | Record<string, string | number>,
    make: (instance: string) => OpenStream,
    manyUntil: number | null = null,
  ): Promise<StreamTicket> {
    // Before anything is written down: what cannot be asked for was not asked for.
    make(anyInstance);
    const { tenant, app, instance = null, process = null } = input;
    const place = await door.get({ tenant }, (tx) =>
      tx.instances.open(app, { instance, process }, permission, what),
    );
    const target = { ...place, instance: place.id, node: place.nodeId };
    return this.#ticket(door, request, permission, target, make(place.id), manyUntil);
  }

  #ticket(
    door: Door,
    request: RequestContext,
    permission: Permission,
    { tenantId, appId, instance, node }: Target,
    open: OpenStream,
    manyUntil: number | null = null,
  ): StreamTicket {
    const { caller } = door;
    const identify = () => request.identifyAgain();
    const errand = { caller, tenantId, permission, appId, instance, node, open, identify };
    const issued = this.tickets.issue({ ...errand, manyUntil });
    return { ...issued, instance, url: this.settings.streams?.publicUrl ?? null };
  }
}

const anyInstance = 'iaaaaaaaaaaaa';

/** @throws DomainError INVALID naming the field that is wrong. */
function checked(open: OpenStream): OpenStream {
  const parsed = openStream.safeParse(open);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw invalid(`${issue?.path.join('.') ?? 'input'}: ${issue?.message ?? 'wrong'}`);
}

/** Opens the door again each time: who is no member any more sees no more. */
async function running(door: Door, tenant: string, app: string): Promise<InstancePlace[]> {
  return door.run({ tenant }, async (tx) => tx.instances.running((await tx.apps.get(app)).id));
}
