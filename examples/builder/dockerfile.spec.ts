import { describe, expect, it } from 'vitest';
import { parseDockerfile } from './dockerfile.ts';

describe('parseDockerfile', () => {
  it('reads what an image is made of', () => {
    const file = parseDockerfile(`# a comment
ARG BASE=node:24-slim
FROM \${BASE}
WORKDIR /app
COPY a.js \\
     b.js ./
COPY site /site
ENV A=1 B="two words"
USER 1000:1000
EXPOSE 8080 53/udp
ENTRYPOINT ["node"]
CMD ["a.js"]
`);
    expect(file).toEqual({
      from: 'node:24-slim',
      copies: [
        { sources: ['a.js', 'b.js'], target: '/app/' },
        { sources: ['site'], target: '/site' },
      ],
      env: [
        ['A', '1'],
        ['B', 'two words'],
      ],
      labels: [],
      exposed: ['8080/tcp', '53/udp'],
      workdir: '/app',
      user: '1000:1000',
      cmd: ['a.js'],
      entrypoint: ['node'],
    });
  });

  it('takes build arguments', () => {
    expect(parseDockerfile('ARG BASE=a\nFROM $BASE', { BASE: 'b' }).from).toBe('b');
  });

  it.each([
    ['FROM busybox\nRUN echo', /line 2: not possible in an offline build: RUN echo/],
    ['COPY a b\nFROM busybox', /FROM comes first/],
    ['FROM busybox\nFROM node', /only one FROM/],
    ['FROM busybox\nCMD echo', /JSON form/],
    ['FROM busybox\nCOPY --from=x a b', /without options/],
    ['FROM busybox\nCOPY a b c', /ending in \//],
    ['# nothing', /no FROM/],
  ])('refuses %j', (text, message) => {
    expect(() => parseDockerfile(text)).toThrow(message);
  });
});
