import { expect, test } from 'vitest';
import { clientOf, SignInAttempts } from './attempts.ts';

test.each([
  ['192.0.2.1', '192.0.2.1'],
  ['::ffff:192.0.2.1', '192.0.2.1'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
  ['2001:0DB8:1:2::1', '2001:db8:1:2::/64'],
  ['2001:db8::1', '2001:db8:0:0::/64'],
  ['::1', '0:0:0:0::/64'],
  ['fe80::1%eth0', 'fe80:0:0:0::/64'],
  ['64:ff9b::192.0.2.1', '64:ff9b:0:0::/64'],
  ['unknown', 'unknown'],
])('%s counts as %s', (address, client) => {
  expect(clientOf(address)).toBe(client);
});

test('who has a whole network of IPv6 has ten guesses, and locks nobody else out', async () => {
  const attempts = new SignInAttempts();
  const results = await Promise.allSettled(
    Array.from({ length: 30 }, (_, i) => attempts.begin('a@example.org', `2001:db8::${i}`)),
  );
  expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(10);
  await expect(attempts.begin('a@example.org', '2001:db8:0:1::1')).resolves.toBeDefined();
});

test('one account has a cap of its own, whoever guesses', async () => {
  const attempts = new SignInAttempts();
  const results = await Promise.allSettled(
    Array.from({ length: 250 }, (_, i) => attempts.begin('a@example.org', `192.0.2.${i}`)),
  );
  expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(200);
});
