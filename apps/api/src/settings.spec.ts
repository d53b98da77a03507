import { expect, test } from 'vitest';
import { readSettings } from './settings.ts';

const enough = {
  DATABASE_URL: 'postgresql://user:hunter2@127.0.0.1/db',
  BULKHEAD_KEY_DIR: '/keys',
};

test('what is left out has the defaults of a single machine', () => {
  expect(readSettings(enough)).toMatchObject({
    host: '127.0.0.1',
    port: 4000,
    platformDomain: 'localhost',
    edgePublicPort: 8080,
    registry: { host: '127.0.0.1:5000', scheme: 'http' },
    signUpOpen: true,
    fleet: null,
    controllers: true,
  });
});

test('a refusal names every variable that is wrong, and repeats no value', () => {
  const wrong = {
    DATABASE_URL: 'mysql://user:hunter2@127.0.0.1/db',
    API_PORT: '99999',
    SIGN_UP: 'maybe',
  };
  expect(() => readSettings(wrong)).toThrowError(
    /DATABASE_URL: .*[^]*BULKHEAD_KEY_DIR: is not set[^]*API_PORT: [^]*SIGN_UP: /,
  );
  expect(() => readSettings(wrong)).not.toThrowError(/hunter2/);
});

test('proxies are addresses or networks, and nobody is trusted who is not named', () => {
  expect(readSettings(enough).trustedProxies).toEqual([]);
  expect(
    readSettings({ ...enough, TRUSTED_PROXIES: '127.0.0.1, 10.1.0.0/16 fd00::/8' }).trustedProxies,
  ).toEqual(['127.0.0.1', '10.1.0.0/16', 'fd00::/8']);
  for (const wrong of ['proxy.example.org', '10.0.0.0/33', 'true', '0.0.0.0/0', 'loopback', '1']) {
    expect(() => readSettings({ ...enough, TRUSTED_PROXIES: wrong }), wrong).toThrowError(
      /TRUSTED_PROXIES: write addresses/,
    );
  }
});

test('the database must be named one way or the other', () => {
  expect(() => readSettings({ BULKHEAD_KEY_DIR: '/keys', DATABASE_URL: '' })).toThrowError(
    /DATABASE_URL_FILE: set it to a file/,
  );
  expect(() =>
    readSettings({ BULKHEAD_KEY_DIR: '/keys', DATABASE_URL_FILE: '/nowhere' }),
  ).toThrowError(/DATABASE_URL_FILE names \/nowhere, which cannot be read \(ENOENT\)/);
});
