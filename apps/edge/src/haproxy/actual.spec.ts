import { describe, expect, it } from 'vitest';
import {
  parseCounts,
  parseMap,
  parseMapEntry,
  parseServers,
  parseStat,
  parseStructure,
} from './actual.ts';

// Answers of HAProxy 2.6.12.
const state = `1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port
2 b0 1 s1 127.0.0.1 2 0 1 1 0 1 0 1 6 0 0 0 - 15501 - 0 0 - - 0
2 b0 2 h2 127.0.0.1 2 8 7 1 0 1 0 1 6 0 0 0 - 15502 - 0 0 - - 0
3 b1 1 s1 fd00::1 0 1 1 1 0 8 2 0 14 0 0 0 - 80 - 0 0 - - 0`;

describe('what HAProxy answers', () => {
  it('tells servers, their address and mode', () => {
    expect(parseServers(state)).toEqual(
      new Map([
        [
          'b0',
          [
            { name: 's1', key: 's 127.0.0.1:15501', mode: 'ready', weight: 1 },
            { name: 'h2', key: 'h 127.0.0.1:15502', mode: 'drain', weight: 7 },
          ],
        ],
        ['b1', [{ name: 's1', key: 's [fd00::1]:80', mode: 'maint', weight: 1 }]],
      ]),
    );
    expect(() => parseServers("Can't find backend.")).toThrow(/Can't find backend/);
  });

  it('tells the map, the structure and counters', () => {
    expect(parseMap('0x55ff118f7e80 foo b0\n0x55ff1304f220 bar starting')).toEqual(
      new Map([
        ['foo', 'b0'],
        ['bar', 'starting'],
      ]),
    );
    expect(parseMap('')).toEqual(new Map());
    const entry =
      'type=str, case=sensitive, found=yes, idx=tree, key="foo", value="b0", type="str"';
    expect(parseMapEntry(entry)).toBe('b0');
    expect(parseMapEntry('type=str, case=sensitive, found=no')).toBe(null);
    expect(() => parseMapEntry('Unknown map identifier.')).toThrow(/Unknown map/);
    expect(parseStructure('proc.structure: type=str value=<abc-64>')).toBe('abc-64');
    expect(parseStructure('Variable not found.')).toBe('');
    const table = `# table: answers, type: integer, size:102400, used:2
0x7fe7bc042de0: key=1025 use=0 exp=86398412 http_req_cnt=2 http_req_rate(30000)=1
0x556b290ce1f0: key=1026 use=1 exp=86398287 http_req_cnt=13 http_req_rate(30000)=0`;
    expect(parseCounts(table)).toEqual(
      new Map([
        [1025, 2],
        [1026, 13],
      ]),
    );
    expect(parseCounts('No such table')).toEqual(new Map());
    expect(() => parseCounts('Unknown command')).toThrow(/Unknown command/);
    expect(parseStat('# pxname,svname,scur,\nb0,s1,3,')[0]?.get('scur')).toBe('3');
  });
});
