import { chmod, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { isLoopback, normaliseServer } from './server.ts';
import { resolveApp, resolveConnection, resolveTenant } from './settings.ts';
import { contextPath, readContexts, writeContexts, type ContextFile } from './store.ts';

const here = { server: 'http://127.0.0.1:4000', tenant: 'demo', token: 'here-token', email: null };
const away = { server: 'https://api.example.com', tenant: null, token: 'away-token', email: null };
const stored: ContextFile = { version: 1, current: 'here', contexts: { here, away } };

describe('server addresses', () => {
  it.each([
    ['127.0.0.1:4000', 'http://127.0.0.1:4000'],
    ['localhost:4000/', 'http://localhost:4000'],
    ['[::1]:4000', 'http://[::1]:4000'],
    ['api.example.com', 'https://api.example.com'],
    ['https://example.com/paas/graphql', 'https://example.com/paas'],
  ])('%s is %s', (text, url) => {
    expect(normaliseServer(text, false)).toBe(url);
  });

  it('refuses plain http to other machines, however they are spelt', () => {
    for (const url of [
      'http://example.com',
      'http://10.0.0.1:4000',
      'http://127.0.0.1.evil.com',
      'http://localhost.evil.com',
    ]) {
      expect(() => normaliseServer(url, false)).toThrow(/in the clear/);
    }
    expect(normaliseServer('http://10.0.0.1:4000', true)).toBe('http://10.0.0.1:4000');
    expect(isLoopback('127.8.8.8')).toBe(true);
    expect(isLoopback('app.localhost')).toBe(true);
  });

  it('refuses what is not the address of a server', () => {
    expect(() => normaliseServer('ftp://example.com', false)).toThrow(/http/);
    expect(() => normaliseServer('https://ann:secret@example.com', false)).toThrow(/password/);
    expect(() => normaliseServer('https://', false)).toThrow(/not the address/);
  });
});

describe('which server, token and tenant', () => {
  it('is the current context by default, and this machine without one', () => {
    expect(resolveConnection({}, {}, stored)).toMatchObject({
      context: 'here',
      token: 'here-token',
      tenant: 'demo',
    });
    expect(resolveConnection({}, {}, { version: 1, current: null, contexts: {} })).toEqual({
      context: null,
      server: 'http://127.0.0.1:4000',
      token: null,
      tenant: null,
    });
  });

  it('never sends a stored token to another server', () => {
    const env = { BULKHEAD_SERVER: 'https://evil.example.com' };
    expect(resolveConnection({}, env, stored)).toMatchObject({
      context: null,
      token: null,
      tenant: null,
    });
    expect(resolveConnection({ server: 'https://api.example.com' }, {}, stored)).toMatchObject({
      context: 'away',
      token: 'away-token',
    });
    expect(() =>
      resolveConnection({ context: 'here', server: 'https://api.example.com' }, {}, stored),
    ).toThrow(/is for/);
  });

  it('takes options before environment before project before context', () => {
    const connection = resolveConnection({}, { BULKHEAD_TOKEN: 'ci' }, stored);
    expect(connection.token).toBe('ci');
    expect(resolveConnection({}, { BULKHEAD_TOKEN: 'ci\n' }, stored).token).toBe('ci');
    const project = { tenant: 'project', app: 'project' };
    expect(
      resolveTenant({ tenant: 'option' }, { BULKHEAD_TENANT: 'env' }, project, connection),
    ).toBe('option');
    expect(resolveTenant({}, { BULKHEAD_TENANT: 'env' }, project, connection)).toBe('env');
    expect(resolveTenant({}, {}, project, connection)).toBe('project');
    expect(resolveTenant({}, {}, null, connection)).toBe('demo');
    expect(() => resolveTenant({}, {}, null, { ...connection, tenant: null })).toThrow(/no tenant/);
    expect(resolveApp('typed', {}, { BULKHEAD_APP: 'env' }, project)).toBe('typed');
    expect(resolveApp(undefined, {}, { BULKHEAD_APP: 'env' }, project)).toBe('env');
    expect(resolveApp(undefined, {}, {}, project)).toBe('project');
    expect(() => resolveApp('one', { app: 'two' }, {}, null)).toThrow(/two apps/);
    expect(() => resolveApp(undefined, {}, {}, null)).toThrow(/no app/);
  });

  it('says so when a context does not exist', () => {
    expect(() => resolveConnection({ context: 'nowhere' }, {}, stored)).toThrow(
      /no context "nowhere"/,
    );
  });
});

describe('the file with the contexts', () => {
  let home: string;
  let path: string;
  const quiet = () => undefined;

  beforeEach(async () => {
    home = await mkdtemp(join(tmpdir(), 'bulkhead-cli-'));
    path = contextPath({ XDG_CONFIG_HOME: home });
  });
  afterEach(() => rm(home, { recursive: true }));

  it('is for its owner alone', async () => {
    await writeContexts(path, stored);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect((await stat(join(home, 'bulkhead'))).mode & 0o777).toBe(0o700);
    expect(await readContexts(path, quiet)).toEqual(stored);
  });

  it('is replaced as a whole and leaves no drafts', async () => {
    await Promise.all(Array.from({ length: 20 }, () => writeContexts(path, stored)));
    expect(await readdir(join(home, 'bulkhead'))).toEqual(['config.json']);
    expect(await readContexts(path, quiet)).toEqual(stored);
  });

  it('is closed again when others could read it, with a warning', async () => {
    await writeContexts(path, stored);
    await chmod(path, 0o644);
    const warnings: string[] = [];
    await readContexts(path, (text) => warnings.push(text));
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect(warnings).toEqual([expect.stringContaining('mode 644')]);
  });

  it('stays a link when it is one', async () => {
    await writeContexts(path, stored);
    const elsewhere = join(home, 'dotfiles.json');
    await writeFile(elsewhere, await readFile(path), { mode: 0o600 });
    await rm(path);
    await symlink(elsewhere, path);
    await writeContexts(path, { ...stored, current: 'away' });
    expect((await readContexts(elsewhere, quiet)).current).toBe('away');
  });

  it('is empty when missing, and an error with a way out when damaged', async () => {
    expect(await readContexts(path, quiet)).toEqual({ version: 1, current: null, contexts: {} });
    await writeContexts(path, stored);
    await writeFile(path, '{"version":1');
    await expect(readContexts(path, quiet)).rejects.toThrow(/damaged/);
  });

  it('ignores a relative XDG_CONFIG_HOME, as the specification wants', () => {
    expect(contextPath({ XDG_CONFIG_HOME: 'relative' })).toMatch(
      /^\/.*\.config\/bulkhead\/config\.json$/,
    );
  });
});
