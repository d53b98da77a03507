import nx from '@nx/eslint-plugin';
import prettier from 'eslint-config-prettier';
import tseslint from 'typescript-eslint';

/** Who may import whom, by the tags in each package.json; the picture is in docs/architecture.md. */
const borders = [
  { sourceTag: 'type:protocol', onlyDependOnLibsWithTags: ['type:protocol'] },
  {
    // Domain code is pure: no I/O, no clock, no database.
    sourceTag: 'type:domain',
    onlyDependOnLibsWithTags: ['type:protocol', 'type:domain'],
    bannedExternalImports: ['pg', 'nats', '@nats-io/*', '@prisma/*', '@nestjs/*', 'koffi', 'pino'],
  },
  {
    sourceTag: 'type:adapter',
    onlyDependOnLibsWithTags: ['type:protocol', 'type:domain', 'type:adapter'],
  },
  {
    sourceTag: 'type:app',
    onlyDependOnLibsWithTags: ['type:protocol', 'type:domain', 'type:adapter'],
  },
  { sourceTag: 'name:cli', onlyDependOnLibsWithTags: ['name:protocol'] },
  { sourceTag: 'name:edge', onlyDependOnLibsWithTags: ['name:protocol'] },
  { sourceTag: 'name:node-agent', onlyDependOnLibsWithTags: ['name:protocol', 'name:runtime'] },
  { sourceTag: 'name:runtime', onlyDependOnLibsWithTags: ['name:protocol'] },
  { sourceTag: 'name:tenancy', onlyDependOnLibsWithTags: ['name:protocol'] },
  // End-to-end tests and benchmarks stand outside: they start platforms and talk to them.
  { sourceTag: 'type:test', onlyDependOnLibsWithTags: ['*'] },
];

export default tseslint.config(
  {
    ignores: [
      '**/dist/',
      '**/node_modules/',
      '.nx/',
      '.bulkhead/',
      'coverage/',
      'libs/tenancy/src/generated/',
      'examples/*/build/',
    ],
  },
  ...tseslint.configs.recommended,
  {
    files: ['**/*.ts'],
    languageOptions: {
      parserOptions: {
        projectService: { allowDefaultProject: ['prisma.config.ts'] },
        tsconfigRootDir: import.meta.dirname,
      },
    },
    rules: {
      // A promise that nobody waits for hides its failure.
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': [
        'error',
        { checksVoidReturn: { arguments: false } },
      ],
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
    },
  },
  {
    files: ['**/*.ts', '**/*.js', '**/*.mjs'],
    plugins: { '@nx': nx },
    rules: {
      '@nx/enforce-module-boundaries': [
        'error',
        { enforceBuildableLibDependency: false, allow: [], depConstraints: borders },
      ],
      '@typescript-eslint/no-unused-vars': [
        'error',
        { argsIgnorePattern: '^_', varsIgnorePattern: '^_', ignoreRestSiblings: true },
      ],
      eqeqeq: ['error', 'always', { null: 'ignore' }],
    },
  },
  {
    // Nest finds what to inject by the constructor's types at run time: an import of a type only would lose them.
    files: ['apps/api/**/*.ts'],
    rules: { '@typescript-eslint/consistent-type-imports': 'off' },
  },
  {
    // Only the door to the database knows the client.
    files: ['**/*.ts'],
    ignores: ['libs/tenancy/**', 'prisma.config.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            {
              group: ['@prisma/*', '**/generated/*'],
              message: 'Only libs/tenancy holds the Prisma client.',
            },
          ],
        },
      ],
    },
  },
  {
    files: ['libs/scheduler/src/**/*.ts'],
    ignores: ['**/*.spec.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            { group: ['node:*'], message: 'The scheduler is pure: what it needs is an argument.' },
          ],
        },
      ],
      'no-restricted-globals': [
        'error',
        ...['Date', 'process', 'fetch', 'setTimeout', 'setInterval', 'performance'].map((name) => ({
          name,
          message: 'The scheduler is pure: time and chance are arguments.',
        })),
      ],
    },
  },
  {
    // They stand outside, and share set-up and clients by path.
    files: ['e2e/**/*.ts', 'bench/**/*.ts', 'deploy/**', 'examples/**'],
    rules: { '@nx/enforce-module-boundaries': 'off' },
  },
  prettier,
);
