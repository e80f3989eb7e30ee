/**
 * Chains of iptables that the engine takes for granted: it makes them when it starts, and without them it can make no
 * network and publish no port until it is started anew. Who flushes the firewall (`iptables -X`, `nft flush ruleset`)
 * takes them away. In: the engine's words of a failure. Out: the chains that they name made again, empty, as the engine
 * makes them; all else of its rules is the engine's own to make anew.
 */
import type { Log } from '../../proto/ports.ts';
import type { Kernel } from './kernel.ts';

export interface EngineChain {
  readonly tool: 'iptables' | 'ip6tables';
  readonly table: string;
  readonly name: string;
}

const isLacking = /No chain\/target\/match|does not exist|Couldn't load target/;
const command = /(ip6?tables) (?:--wait |-w )?(?:-t (\S+) )?-[A-Z] (\S+)(.*)/;
const target = / -[jg] (\S+?)(?=[\s:]|$)/;

/** The engine's chains that `message` names where it says that one is not there; none when it says something else. */
export function chainsLackedIn(message: string): EngineChain[] {
  if (!isLacking.test(message)) return [];
  const [, tool, table = 'filter', chain = '', rest = ''] = command.exec(message) ?? [];
  if (tool !== 'iptables' && tool !== 'ip6tables') return [];
  const names = [chain.replace(/:$/, ''), target.exec(rest)?.[1] ?? ''];
  return names.filter((name) => /^DOCKER[\w-]*$/.test(name)).map((name) => ({ tool, table, name }));
}

/** Makes what `message` says is lacking. Whether there was something to make, so that the engine may be asked again. */
export async function mendEngineChains(kernel: Kernel, message: string, log: Log): Promise<boolean> {
  let isMended = false;
  for (const { tool, table, name } of chainsLackedIn(message)) {
    try {
      await kernel.run(tool, ['-w', '-t', table, '-N', name]);
      isMended = true;
      log.warn(
        { tool, table, chain: name },
        'somebody removed a chain that the engine needs: it is made again, empty',
      );
    } catch {
      // It is there: something else is wrong, and the engine's own words tell it.
    }
  }
  return isMended;
}
