export { examineHost, type ExamineOptions } from './examine.ts';
export {
  isWall,
  missingWalls,
  optionalWalls,
  planRefusal,
  walls,
  type Finding,
  type Wall,
} from './findings.ts';
