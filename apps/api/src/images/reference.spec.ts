import { describe, expect, test } from 'vitest';
import { placesOf } from './reference.ts';

const home = { registry: '127.0.0.1:5000', tenant: 'demo' };
const digest = `sha256:${'a'.repeat(64)}`;
const places = (written: string) =>
  placesOf(written, home).map(({ registry, path, version }) => `${registry} ${path} ${version}`);

describe('where a reference is looked for', () => {
  test.each([
    ['hello', ['127.0.0.1:5000 demo/hello latest', 'docker.io library/hello latest']],
    ['hello:1.2', ['127.0.0.1:5000 demo/hello 1.2', 'docker.io library/hello 1.2']],
    ['demo/hello:1', ['127.0.0.1:5000 demo/hello 1', 'docker.io demo/hello 1']],
    ['someone/hello:1', ['docker.io someone/hello 1']],
    ['127.0.0.1:5000/demo/hello:1', ['127.0.0.1:5000 demo/hello 1']],
    ['127.0.0.1:5000/demo/team/hello', ['127.0.0.1:5000 demo/team/hello latest']],
    ['docker.io/nginx', ['docker.io library/nginx latest']],
    ['index.docker.io/library/nginx:1', ['docker.io library/nginx 1']],
    ['ghcr.io/owner/name:tag', ['ghcr.io owner/name tag']],
    ['localhost/name', ['localhost name latest']],
    ['Registry.Example.org:8443/name', ['registry.example.org:8443 name latest']],
    [
      `hello@${digest}`,
      [`127.0.0.1:5000 demo/hello ${digest}`, `docker.io library/hello ${digest}`],
    ],
    [`ghcr.io/a/b:1@${digest}`, [`ghcr.io a/b ${digest}`]],
  ])('%s', (written, expected) => {
    expect(places(written)).toEqual(expected);
  });
});

test.each([
  '127.0.0.1:5000/other/hello:1',
  '127.0.0.1:5000/hello',
  '127.0.0.1:5000/demonstration/x',
])("another tenant's repository is not found: %s", (written) => {
  expect(() => placesOf(written, home)).toThrowError(
    expect.objectContaining({ code: 'NOT_FOUND' }),
  );
});

test.each([
  '',
  ' ',
  'Hello',
  'hello:',
  'hello:-1',
  'hello@sha256:12',
  `hello@md5:${'a'.repeat(32)}`,
  `a@${digest}@${digest}`,
  'http://example.org/hello',
  'hello/../../etc',
  '127.0.0.1:5000/demo/../other/hello',
  'demo//hello',
  'exa mple.org/hello',
  'example.org:999999/hello',
  'x'.repeat(600),
  'hello:1\nhost: evil',
])('is no reference: %j', (written) => {
  expect(() => placesOf(written, home)).toThrowError(expect.objectContaining({ code: 'INVALID' }));
});
