export { Edge, initEdge } from './edge.ts';
export { edgeFiles, haproxyCommand, readSettings, type EdgeSettings } from './settings.ts';
