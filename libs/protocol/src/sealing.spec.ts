import { expect, test } from 'vitest';
import { makeSealingKeyPair, seal, unseal } from './sealing.ts';

test('what is sealed opens with the private key and the same context only', async () => {
  const node = await makeSealingKeyPair();
  const other = await makeSealingKeyPair();
  const sealed = await seal({ SECRET: 'x' }, node.publicKey, 'iaaaaaaaaaaaa');

  expect(await unseal(sealed, node.privateKey, 'iaaaaaaaaaaaa')).toEqual({ SECRET: 'x' });
  await expect(unseal(sealed, other.privateKey, 'iaaaaaaaaaaaa')).rejects.toThrow();
  await expect(unseal(sealed, node.privateKey, 'ibbbbbbbbbbbb')).rejects.toThrow('something else');
});
