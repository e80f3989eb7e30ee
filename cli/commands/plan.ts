/** Plans in words: what a deploy or an update would do, and where. */
import type { PlannedService } from '../../manager/api/plans.ts';
import { print } from '../output.ts';

/** Prints what becomes of each service. */
export function printServices(services: readonly PlannedService[]): void {
  for (const service of services) {
    print(`${service.Action} service ${service.Name}`);
    for (const difference of service.Differences) print(`    ${difference}`);
    for (const { Task, From, Node, Reason } of service.Replaced) {
      print(
        `    restarts ${Task}: ${Reason === '' ? `${From} → ${Node}` : `from ${From}, and waits: ${Reason}`}`,
      );
    }
    for (const { Task, Node, Reason } of service.Started) {
      print(`    starts ${Task}${Reason === '' ? ` on ${Node}` : `, which waits: ${Reason}`}`);
    }
    if (service.Stopped > 0) print(`    stops ${tasks(service.Stopped)}`);
    if (service.Action === 'update') print(`    leaves ${tasks(service.Untouched)} as they are`);
  }
}

function tasks(count: number): string {
  return count === 1 ? '1 task' : `${count} tasks`;
}
