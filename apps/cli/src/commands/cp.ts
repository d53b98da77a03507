import { lstat, stat } from 'node:fs/promises';
import { posix, resolve } from 'node:path';
import type { Command } from 'commander';
import { CliError, usageError } from '../errors.ts';
import type { GraphqlClient } from '../graphql/client.ts';
import { copyFromInstance, copyToInstance } from '../graphql/operations.ts';
import { showTransfer } from '../progress/transfer.ts';
import type { Session } from '../session.ts';
import { firstType, packed, Unpacking } from '../streams/archive.ts';
import { put } from '../streams/attend.ts';
import { parseFar, planCopy, wantsContents, type Far, type Kind } from '../streams/copy-plan.ts';
import { Stream, type Receiver } from '../streams/stream.ts';
import { instanceId } from './instance-name.ts';
import { appOptions, examples, type Act } from './kit.ts';

/** What a copy needs to know of the far side. */
interface Place extends Far {
  readonly session: Session;
  readonly client: GraphqlClient;
  readonly at: { tenant: string; app: string };
}

/** A link is what it leads to: a directory, or the copy into it will say that it is none. */
const kindOf = (type: string): 'file' | 'directory' =>
  type === 'File' || type === 'OldFile' ? 'file' : 'directory';

async function localKind(path: string): Promise<Kind> {
  try {
    // A link at the end is what it leads to, as the target of a copy.
    return (await stat(path)).isDirectory() ? 'directory' : 'file';
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 'missing';
    throw new CliError('INVALID', (error as Error).message);
  }
}

async function openOut(place: Place, receiver: Receiver): Promise<Stream> {
  const { client, at, instance, path, session } = place;
  const { copyFromInstance: ticket } = await client.request(copyFromInstance, {
    input: { ...at, instance, process: null, path },
  });
  return stopping(session, new Stream(session, ticket, receiver));
}

async function openIn(place: Place, path: string): Promise<Stream> {
  const { client, at, instance, session } = place;
  const { copyToInstance: ticket } = await client.request(copyToInstance, {
    input: { ...at, instance, process: null, path },
  });
  return stopping(session, new Stream(session, ticket, { data: () => undefined }));
}

/** Ctrl-C ends a copy. */
function stopping(session: Session, stream: Stream): Stream {
  const { signal } = session.io;
  const stop = () => stream.close();
  signal.addEventListener('abort', stop, { once: true });
  const forget = () => signal.removeEventListener('abort', stop);
  stream.done.then(forget, forget);
  return stream;
}

/** What a path of the instance is: what an archive of it begins with. */
async function farKind(place: Place): Promise<Kind> {
  let type: string | null = null;
  let begun = Buffer.alloc(0);
  const stream: Stream = await openOut(place, {
    data: (bytes) => {
      if (type !== null) return;
      begun = Buffer.concat([begun, bytes]);
      type = firstType(begun);
      if (type !== null) stream.close();
    },
  });
  try {
    await stream.done;
  } catch (error) {
    if (error instanceof CliError && error.code === 'NOT_FOUND') return 'missing';
    throw error;
  }
  place.session.io.signal.throwIfAborted();
  return type === null ? 'missing' : kindOf(type);
}

async function copyOut(place: Place, target: string): Promise<void> {
  const { session, path } = place;
  const transfer = showTransfer(session, `from ${place.instance}`);
  const root = posix.basename(posix.normalize(path)) || '.';
  const kind = await localKind(target);
  const to: { begun: Buffer; unpacking: Unpacking | null } = {
    begun: Buffer.alloc(0),
    unpacking: null,
  };
  const take = async (bytes: Buffer) => {
    transfer.add(bytes.length);
    if (to.unpacking !== null) return to.unpacking.write(bytes);
    to.begun = Buffer.concat([to.begun, bytes]);
    const type = firstType(to.begun);
    if (type === null) return;
    const source = { path, kind: kindOf(type) };
    to.unpacking = await Unpacking.into(planCopy(source, { path: target, kind }), root);
    await to.unpacking.write(to.begun);
  };
  try {
    await (
      await openOut(place, { data: take })
    ).done;
    session.io.signal.throwIfAborted();
    const failed = (await to.unpacking?.end()) ?? [];
    finish(session, transfer.close(), `to ${target}`, failed);
  } finally {
    transfer.close();
  }
}

async function copyIn(place: Place, source: string): Promise<void> {
  const { session } = place;
  const found = await (wantsContents(source) || source.endsWith('/') ? stat : lstat)(source).catch(
    () => null,
  );
  if (found === null) throw new CliError('NOT_FOUND', `there is no ${source} here`);
  const kind = found.isDirectory() ? 'directory' : 'file';
  const landing = planCopy(
    { path: wantsContents(source) ? source : resolve(source), kind },
    { path: place.path, kind: await farKind(place) },
  );
  const transfer = showTransfer(session, `to ${place.instance}`);
  try {
    // A directory that is not there yet comes with the archive, under its name.
    const at = landing.make
      ? {
          directory: posix.dirname(landing.directory),
          name: posix.basename(landing.directory),
          make: false,
        }
      : landing;
    const archive = await packed(source, at);
    if (archive !== null) {
      const stream = await openIn(place, at.directory);
      await upload(stream, archive, (count) => transfer.add(count));
      session.io.signal.throwIfAborted();
    }
    finish(session, transfer.close(), `to ${place.instance}:${place.path}`, []);
  } finally {
    transfer.close();
  }
}

/** Sends all there is, unless the far side has enough or fails first. */
async function upload(
  stream: Stream,
  source: AsyncIterable<unknown>,
  sent: (count: number) => void,
): Promise<void> {
  let over = false;
  const stop = () => (over = true);
  stream.done.then(stop, stop);
  for await (const chunk of source) {
    const bytes = chunk as Buffer;
    await stream.send(bytes);
    if (over) break;
    sent(bytes.length);
  }
  await stream.end();
  await stream.done;
}

function finish(session: Session, count: string, where: string, failed: readonly string[]): void {
  for (const text of failed) session.out.warn(text);
  if (failed.length > 0) {
    throw new CliError('FAILED', `${String(failed.length)} of the files were not copied`);
  }
  session.out.note(`Copied ${count} ${where}`);
}

export function copyCommand(program: Command, act: Act): void {
  examples(
    appOptions(
      program
        .command('cp')
        .description('Copy files between this machine and a running instance')
        .argument('<source>', 'PATH here, INSTANCE:PATH, or - for a tar archive on stdin')
        .argument('<target>', 'INSTANCE:PATH, PATH here, or - for a tar archive on stdout'),
    ).action(
      act(async (session, _options: object, source: string, target: string) => {
        const [from, to] = [parseFar(source), parseFar(target)];
        const far = from ?? to;
        if (far === null || (from !== null && to !== null)) {
          throw usageError(
            'one of the two must be INSTANCE:PATH, the other a path here',
            'Example: bulkhead cp ./dump.sql i3k9:/tmp/ (`bulkhead ps` lists the instances).',
          );
        }
        const at = session.app();
        const client = session.client();
        const instance = await instanceId(client, at, far.instance);
        const place = { session, client, at, instance, path: far.path };
        const { stdin, stdout } = session.io.streams;
        if (from !== null && target === '-') {
          if (stdout.isTTY)
            throw usageError('a tar archive is nothing for a terminal', 'Add > file.tar');
          await (
            await openOut(place, { data: (bytes) => put(stdout, bytes) })
          ).done;
        } else if (from !== null) await copyOut(place, target);
        else if (source === '-')
          await upload(await openIn(place, far.path), stdin, () => undefined);
        else await copyIn(place, source);
        session.io.signal.throwIfAborted();
      }),
    ),
    [
      'cp ./dump.sql i3k9:/tmp/ --app hello',
      'cp i3k9:/data/uploads ./uploads --app hello',
      'cp ./public/. i3k9:/srv/www --app hello',
      'cp i3k9:/data - --app hello | tar tv',
    ],
    'As docker cp: a directory goes into one that is there, or becomes one that is not; dir/. means\nwhat is in it. Permissions are kept; files belong to you here, and to root there. Links that lead\nout of what is copied are left out.',
  );
}
