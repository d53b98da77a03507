import { startPlatform, stopPlatform } from '../../deploy/platform.ts';
import { e2eOptions } from './platform.ts';

/** Vitest's global set-up: one platform for all files; the end proves that nothing of it is left. */
export async function setup(): Promise<() => Promise<void>> {
  const { root, stateDir } = e2eOptions;
  const lines: string[] = [];
  const write = (text: string) => void lines.push(text);
  // What a killed run left behind.
  await stopPlatform({ root, stateDir, purge: true, write });
  try {
    await startPlatform({ ...e2eOptions, write });
  } catch (error) {
    process.stderr.write(lines.join(''));
    throw error;
  }
  return () => stopPlatform({ root, stateDir, purge: true, write });
}
