/** Twice a day a look whether certificates of the fleet are to be renewed; in between, a `sleep`. */
import { join } from 'node:path';
import { root as rootUser } from '../files.ts';
import type { PlatformSettings } from '../settings.ts';
import type { Service } from '../supervise.ts';

const seconds = 12 * 3600;

export function renewalService(settings: PlatformSettings): Service {
  const { root, stateDir } = settings;
  return {
    name: 'renewal',
    owner: rootUser,
    // When the sleep is over, runit starts it again. A renewal that failed is in the log, and tried again.
    command: [
      ...['sh', '-c', `"$@"; exec sleep ${seconds}`, 'renewal'],
      join(root, 'node_modules/.bin/node'),
      ...['--conditions=@bulkhead/source', '--disable-warning=ExperimentalWarning'],
      ...[join(root, 'deploy/renew.ts'), stateDir],
    ],
    env: { BULKHEAD_STATE: stateDir, BULKHEAD_SERVICE: 'renewal' },
    seesClone: false,
    // It serves nobody.
    check: () => Promise.resolve(),
  };
}
