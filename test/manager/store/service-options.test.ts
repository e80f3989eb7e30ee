import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  dependencyConditions,
  formatDependencies,
  optionLabel,
  readServiceOptions,
  serviceOption,
} from '../../../manager/store/service-options.ts';
import { isShoalError } from '../../../proto/errors.ts';

describe('options of services in labels', () => {
  it('what labels do not say is as it always was', () => {
    const none = readServiceOptions({});
    assert.deepEqual([none.ingress, none.dependsOn, none.rotate], ['all', [], { kind: 'restart' }]);
    assert.deepEqual([none.partition, none.drain, none.rebalance], [{ afterMs: 0 }, undefined, 0]);
    assert.equal(none['partition.stopOnIsolation'], undefined);
    assert.deepEqual(readServiceOptions({ 'com.example.team': 'x', shoal: 'y' }), none);
  });

  it('reads what is asked for', () => {
    const labels = {
      'shoal.ingress': 'local',
      'shoal.depends-on': 'db:service_healthy, cache,migrate:service_completed_successfully',
      'shoal.rotate': 'signal:SIGHUP',
    };
    const expected = {
      ...readServiceOptions({}),
      rotate: { kind: 'signal', signal: 'SIGHUP' },
      ingress: 'local',
      dependsOn: [
        { service: 'db', condition: 'service_healthy' },
        { service: 'cache', condition: 'service_started' },
        { service: 'migrate', condition: 'service_completed_successfully' },
      ],
    };
    assert.deepEqual(readServiceOptions(labels), expected);
    assert.deepEqual(serviceOption(labels, 'dependsOn'), expected.dependsOn);
    assert.equal(serviceOption(labels, 'ingress'), 'local');
  });

  it('reads how a service bears maintenance and lost nodes', () => {
    const labels = {
      'shoal.partition': 'wait:1m30s',
      'shoal.partition.stop-on-isolation': 'after:20s',
      'shoal.drain': 'stop-first',
      'shoal.rebalance': '3',
    };
    const { partition, drain, rebalance, ...rest } = readServiceOptions(labels);
    assert.deepEqual([partition, drain, rebalance], [{ afterMs: 90_000 }, 'stop-first', 3]);
    assert.equal(rest['partition.stopOnIsolation'], 20_000);
    assert.equal(
      serviceOption({ 'shoal.partition': 'never' }, 'partition').afterMs,
      Number.POSITIVE_INFINITY,
    );
    const isTrue = { 'shoal.partition.stop-on-isolation': 'true' };
    assert.equal(serviceOption(isTrue, 'partition.stopOnIsolation'), 10_000);
    assert.equal(serviceOption({ 'shoal.rebalance': 'on' }, 'rebalance'), 1);
    assert.equal(serviceOption({ 'shoal.rollout.share': '10%' }, 'rollout.share'), 10);
    assert.equal(serviceOption({}, 'rollout.share'), undefined);
    assert.equal(serviceOption({ 'shoal.ingress': 'proxy-protocol' }, 'ingress'), 'proxy-protocol');
  });

  for (const [label, value, complaint] of [
    ['shoal.partition', 'wait', /shoal\.partition must be replace, never or wait:<duration>/],
    [
      'shoal.partition.stop-on-isolation',
      'after:1s',
      /must be true, false or after:<duration>.* 5 s at least/,
    ],
    ['shoal.drain', 'fast', /shoal\.drain must be one of start-first, stop-first, at-once/],
    ['shoal.rebalance', '0', /shoal\.rebalance must be on, off or how many/],
    ['shoal.rollout.share', '0%', /shoal\.rollout\.share must be a share of new connections from 1% to 99%/],
    ['shoal.rollout.share', '100%', /must be a share of new connections/],
    ['shoal.bogus', 'x', /"shoal\.bogus" is no label that Shoal knows; .*shoal\.ingress/],
    ['shoal.', 'x', /"shoal\." is no label that Shoal knows/],
    ['shoal.ingress', 'near', /shoal\.ingress must be one of all, local, proxy-protocol, not "near"/],
    ['shoal.cron', '* * *', /shoal\.cron must be the five fields of cron/],
    ['shoal.cron.timezone', 'Mars/Olympus', /shoal\.cron\.timezone must be a name of the time zone database/],
    ['shoal.cron.overlap', 'perhaps', /must be one of allow, forbid, replace/],
    ['shoal.cron.history', '-1', /must be a whole number from 0 to 100/],
    ['shoal.rotate', 'signal:SIGKILL', /shoal\.rotate must be restart, none, or signal:/],
    ['shoal.rotate', 'reload', /shoal\.rotate must be restart/],
    ['shoal.depends-on', '', /shoal\.depends-on must be names of services/],
    ['shoal.depends-on', 'db:healthy', /must be names of services.*not "db:healthy"/],
    ['shoal.depends-on', 'db,,x', /must be names of services/],
    ['shoal.depends-on', 'db,db:service_healthy', /each service once \(db is there twice\)/],
  ] as const) {
    it(`refuses ${label}=${JSON.stringify(value)} by name`, () => {
      assert.throws(
        () => readServiceOptions({ [label]: value }),
        (error) => isShoalError(error, 'invalid-argument') && complaint.test((error as Error).message),
      );
    });
  }

  it('a stored value that is not understood counts as absent', () => {
    assert.equal(serviceOption({ 'shoal.ingress': 'planet' }, 'ingress'), 'all');
  });

  it('dependencies written out are read as they were', () => {
    const dependency = fc.record(
      {
        service: fc.stringMatching(/^[a-z][a-z0-9_-]{0,5}[a-z0-9]$/),
        condition: fc.constantFrom(...dependencyConditions),
      },
      { noNullPrototype: true },
    );
    const some = fc.uniqueArray(dependency, { minLength: 1, selector: ({ service }) => service });
    fc.assert(
      fc.property(some, (dependencies) => {
        const labels = { [optionLabel('dependsOn')]: formatDependencies(dependencies) };
        assert.deepEqual(readServiceOptions(labels).dependsOn, dependencies);
      }),
    );
  });
});
