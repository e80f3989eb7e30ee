/** The engine's suite against a real Docker Engine: that of a host of the lab. */

import { DockerEngine } from '../../agent/engine/docker.ts';
import { realClock } from '../../cli/runtime.ts';
import { engineCompliance } from '../agent/engine/compliance.ts';
import { waitFor } from '../agent/wait.ts';
import { seededRandom } from '../simulation/random.ts';
import { Lab, labMissing } from './lab.ts';

const patienceMs = 20_000;
const image = 'busybox:lab';
const HostConfig = { NetworkMode: 'none' };

describe('lab: Docker Engine as our agent drives it', function () {
  this.timeout(60_000);
  let lab: Lab;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(1);
  });
  after(async () => {
    await lab?.down();
  });

  engineCompliance(async () => ({
    engine: new DockerEngine({
      address: lab.host(1).dockerSocket,
      clock: realClock,
      random: seededRandom(1),
    }),
    image,
    missingImage: 'localhost:1/shoal/missing:1',
    lasting: { Cmd: ['/bin/sh', '-c', 'echo hello; exec sleep 1000'], HostConfig },
    failing: { image, config: { Cmd: ['/bin/sh', '-c', 'exit 3'], HostConfig } },
    broken: { image, config: { Cmd: ['/no/such/program'], HostConfig } },
    until: (promise) => promise,
    waitFor: (condition) => waitFor(condition, patienceMs),
  }));
});
