import { expect, test } from 'vitest';
import { appHealth, type AppFacts } from './health.ts';

const facts: AppFacts = {
  state: 'active',
  hasRelease: true,
  deploying: false,
  processes: [{ count: 2, ready: 2 }],
  instanceStates: ['ready', 'ready'],
};

test.each<[string, Partial<AppFacts>]>([
  ['running', {}],
  ['running', { processes: [{ count: 0, ready: 0 }], instanceStates: [] }],
  // More than wanted, while an old instance drains.
  ['running', { processes: [{ count: 1, ready: 2 }] }],
  ['new', { hasRelease: false, processes: [], instanceStates: [] }],
  ['deploying', { deploying: true, processes: [{ count: 2, ready: 0 }] }],
  ['degraded', { processes: [{ count: 2, ready: 1 }], instanceStates: ['ready', 'backoff'] }],
  ['degraded', { processes: [{ count: 2, ready: 0 }], instanceStates: ['pending', 'pending'] }],
  [
    'degraded',
    {
      processes: [
        { count: 1, ready: 1 },
        { count: 1, ready: 0 },
      ],
      instanceStates: ['ready', 'failed'],
    },
  ],
  ['crashed', { processes: [{ count: 2, ready: 0 }], instanceStates: ['backoff', 'starting'] }],
  ['crashed', { processes: [{ count: 1, ready: 0 }], instanceStates: ['failed'] }],
  ['paused', { processes: [{ count: 2, ready: 0 }], instanceStates: ['paused', 'paused'] }],
  ['degraded', { processes: [{ count: 2, ready: 1 }], instanceStates: ['ready', 'paused'] }],
  ['stopped', { state: 'stopped', deploying: true }],
  ['deleting', { state: 'deleting' }],
])('%s: %j', (health, change) => {
  expect(appHealth({ ...facts, ...change })).toBe(health);
});
