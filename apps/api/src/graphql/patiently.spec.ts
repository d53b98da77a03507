import { expect, test } from 'vitest';
import { notFound, unavailable } from '@bulkhead/protocol';
import { endable } from './endable.ts';
import { patiently } from './patiently.ts';

test('waits through an outage', async () => {
  let tries = 0;
  const answer = await patiently(() => {
    tries += 1;
    return tries < 2
      ? Promise.reject(unavailable('the database is away'))
      : Promise.resolve('there');
  }, new AbortController().signal);
  expect(answer).toBe('there');
});

test('any other error is one at once, and nobody waits who has ended', async () => {
  const going = new AbortController().signal;
  await expect(patiently(() => Promise.reject(notFound('App')), going)).rejects.toThrow(
    'App not found',
  );
  const ended = AbortSignal.abort();
  await expect(patiently(() => Promise.reject(unavailable('away')), ended)).rejects.toThrow('away');
});

test('a subscription that waits can be ended', async () => {
  let tidied = false;
  const events = endable(async function* (ending) {
    try {
      yield 1;
      await new Promise<void>((resolve) => ending.addEventListener('abort', () => resolve()));
    } finally {
      tidied = true;
    }
  });
  expect(await events.next()).toEqual({ value: 1, done: false });
  const waiting = events.next();
  await events.return();
  expect(await waiting).toEqual({ value: undefined, done: true });
  expect(tidied).toBe(true);
});
