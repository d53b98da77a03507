import { mkdir, readdir } from 'node:fs/promises';
import { basename, dirname, posix, resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { create, Header, Unpack, type ReadEntry, type WriteEntry } from 'tar';
import { CliError } from '../errors.ts';
import { plainText } from '../output/text.ts';
import { landingPath, wantsContents, type Landing } from './copy-plan.ts';

const block = 512;
/** Names that are longer than this are nobody's. */
const mostPreface = 1024 * 1024;
const prefaces = new Set([
  'ExtendedHeader',
  'GlobalExtendedHeader',
  'NextFileHasLongPath',
  'NextFileHasLongLinkpath',
]);

/** The type of the first thing in an archive, from its first bytes; null: more of them are needed. */
export function firstType(bytes: Buffer): string | null {
  let at = 0;
  while (at + block <= bytes.length) {
    const header = new Header(bytes, at);
    // The end of an archive that has nothing in it.
    if (header.nullBlock) return null;
    if (!header.cksumValid || header.type === undefined) throw broken();
    if (!prefaces.has(header.type)) return header.type;
    at += block + Math.ceil((header.size ?? 0) / block) * block;
    if (at > mostPreface) throw broken();
  }
  return null;
}

const broken = () =>
  new CliError('UNAVAILABLE', 'what came from the instance is no tar archive', {
    hint: 'This bulkhead and the server are probably of different versions.',
  });

/**
 * Unpacks an archive that somebody else wrote. The library lets nothing out of the directory: no
 * `..`, no absolute path, no way through a link. Links that lead out are left out, owners are
 * ours, and nobody gets a set-user-id file of another's making.
 */
export class Unpacking {
  readonly #unpack: Unpack;
  readonly #done: Promise<void>;
  readonly #umask: number;
  #failed: string[] = [];

  private constructor(landing: Landing, root: string) {
    // The library makes files with their permissions, as far as the umask lets it.
    this.#umask = process.umask(0);
    this.#unpack = new Unpack({
      cwd: landing.directory,
      chmod: true,
      processUmask: 0,
      umask: this.#umask,
      preserveOwner: false,
      filter: (_path, entry) => this.#rename(entry as ReadEntry, root, landing.name),
      onwarn: (code, message) => {
        if (code !== 'TAR_ENTRY_INFO') this.#failed.push(plainText(String(message)));
      },
    });
    this.#done = new Promise((resolve, reject) => {
      this.#unpack.once('close', () => resolve());
      this.#unpack.once('error', reject);
    });
    this.#done.catch(() => undefined);
  }

  static async into(landing: Landing, root: string): Promise<Unpacking> {
    if (landing.make) await mkdir(landing.directory);
    return new Unpacking(landing, root);
  }

  #rename(entry: ReadEntry, root: string, name: string | null): boolean {
    const path = landingPath(entry.path, root, name);
    if (path === null) return this.#leaveOut(`${entry.path} is not what was asked for`);
    if (entry.type === 'SymbolicLink') {
      const target = entry.linkpath ?? '';
      const inside = posix.join(posix.dirname(path), target);
      if (target.startsWith('/') || inside === '..' || inside.startsWith('../'))
        return this.#leaveOut(`${path} is a link to ${target}, which is outside of the copy`);
    }
    if (entry.type === 'Link') {
      const target = landingPath(entry.linkpath ?? '', root, name);
      if (target === null) return this.#leaveOut(`${path} is a link to outside of the copy`);
      entry.linkpath = target;
    }
    entry.path = path;
    if (entry.mode !== undefined) entry.mode &= 0o777;
    return true;
  }

  #leaveOut(why: string): false {
    this.#failed.push(plainText(why));
    return false;
  }

  async write(bytes: Buffer): Promise<void> {
    if (this.#unpack.write(bytes)) return;
    await Promise.race([
      new Promise<void>((resolve) => this.#unpack.once('drain', () => resolve())),
      this.#done,
    ]);
  }

  /** Waits until all of it is on the disk. Gives what was left out or failed, a sentence each. */
  async end(): Promise<readonly string[]> {
    this.#unpack.end();
    try {
      await this.#done;
    } finally {
      process.umask(this.#umask);
    }
    return this.#failed;
  }
}

/**
 * An archive of a local file or directory as it is to be called at its landing. Files belong to
 * root there, as those of an image do; their permissions stay.
 */
export async function packed(source: string, landing: Landing): Promise<Readable | null> {
  const whole = resolve(source);
  const contents = landing.name === null || wantsContents(source);
  const cwd = contents ? whole : dirname(whole);
  const root = contents ? '.' : basename(whole);
  // `./` before each: the library takes a name that begins with @ for an archive to add.
  const names = contents ? (await readdir(whole)).map((name) => `./${name}`) : [`./${root}`];
  if (names.length === 0) return null;
  const onWriteEntry = (entry: WriteEntry) => {
    entry.path = landingPath(entry.path, root, landing.name) ?? entry.path;
    if (entry.type === 'Link' && entry.linkpath !== undefined)
      entry.linkpath = landingPath(entry.linkpath, root, landing.name) ?? entry.linkpath;
    if (entry.stat) Object.assign(entry.stat, { uid: 0, gid: 0 });
  };
  return create({ cwd, onWriteEntry, noDirRecurse: false }, names) as unknown as Readable;
}
