export { Agent, type AgentOptions } from './agent.ts';
export { readSettings, type Settings } from './settings.ts';
