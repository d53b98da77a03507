import { expect, test } from 'vitest';
import { makeLogger } from './logger.ts';

function logged(object: object): string {
  let written = '';
  makeLogger('info', { write: (line) => void (written += line) }).info(object, 'message');
  return written;
}

test('fields that carry secrets are cut out, also two levels down', () => {
  const secret = 'hunter2';
  for (const object of [
    { password: secret },
    { headers: { authorization: secret } },
    { request: { body: { variables: secret } } },
    { token: secret },
  ]) {
    expect(logged(object)).not.toContain(secret);
    expect(logged(object)).toContain('[redacted]');
  }
});

test("of Prisma's errors only the verdict is kept, not the query", () => {
  const error = new Error(
    '\nInvalid invocation:\n{ passwordHash: "hunter2" }\n\nUnique constraint failed',
  );
  error.name = 'PrismaClientKnownRequestError';
  const line = logged({ err: error });
  expect(line).toContain('Unique constraint failed');
  expect(line).not.toContain('hunter2');
});
