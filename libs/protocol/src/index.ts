export * from './errors.ts';
export * from './app-spec.ts';
export * from './instance.ts';
export * from './node.ts';
export * from './route.ts';
export * from './logs.ts';
export * from './subjects.ts';
export * from './sealing.ts';
