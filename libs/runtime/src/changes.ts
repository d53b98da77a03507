import { lstatSync, readdirSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';
import type { FileChange } from '@bulkhead/protocol';
import { attributeOf } from './syscalls.ts';

/**
 * What a container changed of its image, read from the upper layer of its overlay as `docker diff`
 * tells it. Synchronous calls, since the layers are mounted for the main thread alone (disk.ts), and
 * a pause after every so many.
 */
const entriesPerTurn = 500;

/** What every start makes in the upper layer, so that something can be mounted there. */
const ours = new Set(['/dev', '/proc', '/sys', '/etc/hosts', '/etc/hostname', '/etc/resolv.conf']);

/**
 * @param upper upper directory of the overlay
 * @param layers the image's layers, topmost first
 */
export async function* changesOf(
  upper: string,
  layers: readonly string[],
): AsyncGenerator<FileChange> {
  let looked = 0;
  const walk = async function* (dir: string, opaque: boolean): AsyncGenerator<FileChange> {
    for (const name of readdirSync(`${upper}${dir}`)) {
      if (++looked % entriesPerTurn === 0) await turn();
      const path = `${dir}/${name}`;
      if (ours.has(path)) continue;
      const file = statOf(`${upper}${path}`);
      if (!file) continue;
      const before = opaque ? null : inLayers(layers, path);
      if (isWhiteout(file)) {
        if (before) yield { change: 'deleted', kind: kindOf(before), path };
        continue;
      }
      const change: FileChange = { change: before ? 'changed' : 'added', kind: kindOf(file), path };
      if (!file.isDirectory()) {
        yield change;
        continue;
      }
      const hides = opaque || !before || isOpaque(`${upper}${path}`);
      const below = walk(path, hides);
      const first = await below.next();
      // A directory that was only copied up to mount something in it was not changed by anybody.
      if (first.done && before && before.mode === file.mode) continue;
      yield change;
      if (!first.done) yield first.value;
      yield* below;
    }
  };
  yield* walk('', false);
}

/** What the image has at `path`, whichever layer decides. */
function inLayers(layers: readonly string[], path: string): Stats | null {
  const parts = path.split('/').slice(1);
  for (const layer of layers) {
    let at = layer;
    for (const [index, part] of parts.entries()) {
      at = `${at}/${part}`;
      const found = statOf(at);
      if (!found) break;
      if (isWhiteout(found)) return null;
      if (index === parts.length - 1) return found;
      // Whatever is below in other layers is hidden.
      if (!found.isDirectory()) return null;
      if (isOpaque(at)) {
        const rest = statOf([at, ...parts.slice(index + 1)].join('/'));
        return rest && !isWhiteout(rest) ? rest : null;
      }
    }
  }
  return null;
}

function statOf(path: string): Stats | null {
  try {
    return lstatSync(path);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
}

const isWhiteout = (file: Stats): boolean => file.isCharacterDevice() && file.rdev === 0;

const isOpaque = (path: string): boolean =>
  attributeOf(path, 'trusted.overlay.opaque') === 'y' ||
  attributeOf(path, 'user.overlay.opaque') === 'y';

function kindOf(file: Stats): FileChange['kind'] {
  if (file.isFile()) return 'file';
  if (file.isDirectory()) return 'directory';
  return file.isSymbolicLink() ? 'symlink' : 'other';
}
