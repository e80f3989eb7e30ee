"""
What python-docker (Debian's python3-docker) does with a daemon, case by case: `python3 python_docker.py [CASE...]`, with
DOCKER_HOST set and an image busybox:lab in the engine. Each case begins outside of a swarm and ends there. Prints a line
of JSON for each: its name, and the traceback when it failed.
"""
import json
import random
import sys
import time
import traceback

import docker
from docker import types
from docker.errors import APIError, NotFound

IMAGE = 'busybox:lab'
SLEEP = ['sleep', '1000000']
# A sleep does not heed a stop signal: the tests do not wait for it.
GRACE = {'stop_grace_period': 200000000}


def until(what, probe, seconds=40):
    """The first true answer of probe."""
    end = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError('waited %d s for %s' % (seconds, what))
        time.sleep(0.1)


def refused(status, words, action):
    """The action fails with this status and a message that has these words."""
    try:
        action()
    except APIError as error:
        assert error.status_code == status, error
        assert words in error.explanation, error.explanation
        return
    raise AssertionError('not refused: ' + words)


def init(client, **options):
    return client.swarm.init('127.0.0.1', listen_addr='0.0.0.0:%d' % random.randrange(10000, 25000), **options)


def running(service):
    return [task for task in service.tasks({'desired-state': 'running'}) if task['Status']['State'] == 'running']


def case_outside_of_a_swarm(client):
    assert client.ping()
    assert client.info()['Swarm']['LocalNodeState'] == 'inactive'
    for ask in (client.nodes.list, client.services.list, client.secrets.list, client.configs.list):
        refused(503, 'This node is not a swarm manager', ask)
    refused(503, 'not part of a swarm', client.swarm.leave)


def case_init_and_leave_again_and_again(client):
    seen = set()
    for _ in range(4):
        init(client)
        refused(503, 'already part of a swarm', lambda: init(client))
        (node,) = client.nodes.list(filters={'role': 'manager'})
        assert node.attrs['ManagerStatus']['Leader'], node.attrs
        seen.add(node.id)
        client.services.create(IMAGE, SLEEP, name='left', mode='global', **GRACE)
        refused(503, 'Use `--force`', client.swarm.leave)
        client.swarm.leave(force=True)
        assert client.info()['Swarm']['NodeID'] == ''
    assert len(seen) == 4
    until('the containers to be gone', lambda: not client.containers.list(all=True, ignore_removed=True))


def case_force_new_cluster_keeps_what_there_is(client):
    init(client)
    client.secrets.create(name='kept', data=b'x')
    before = client.info()['Swarm']['NodeID']
    client.swarm.init('127.0.0.1', force_new_cluster=True)
    assert client.info()['Swarm']['NodeID'] == before
    assert [secret.name for secret in client.secrets.list()] == ['kept']


def case_swarm_settings_tokens_and_lock(client):
    init(client, task_history_retention_limit=3, snapshot_interval=5000, name='default')
    swarm = client.swarm
    swarm.reload()
    assert swarm.attrs['Spec']['Orchestration']['TaskHistoryRetentionLimit'] == 3
    assert swarm.attrs['Spec']['Raft']['SnapshotInterval'] == 5000
    tokens = swarm.attrs['JoinTokens']
    assert swarm.update(rotate_worker_token=True, rotate_manager_token=True, task_history_retention_limit=4)
    swarm.reload()
    assert swarm.attrs['Spec']['Orchestration']['TaskHistoryRetentionLimit'] == 4
    assert tokens['Worker'] != swarm.attrs['JoinTokens']['Worker']
    assert tokens['Manager'] != swarm.attrs['JoinTokens']['Manager']
    assert swarm.get_unlock_key()['UnlockKey'] == ''
    swarm.update(autolock_managers=True)
    assert swarm.get_unlock_key()['UnlockKey'].startswith('SWMKEY-1-')


def case_nodes(client):
    init(client)
    (node,) = client.nodes.list()
    assert client.nodes.get(node.id).attrs['Spec']['Role'] == 'manager'
    node.update({'Role': 'manager', 'Availability': 'drain', 'Labels': {'zone': 'a'}})
    node.reload()
    assert node.attrs['Spec']['Availability'] == 'drain'
    assert [one.id for one in client.api.nodes({'node.label': 'zone=a'}) and client.nodes.list()] == [node.id]
    service = client.services.create(IMAGE, SLEEP, name='web', **GRACE)
    until('a reason why it is not placed', lambda: any('node' in task['Status'].get('Err', '') for task in service.tasks()))
    node.update({'Role': 'manager', 'Availability': 'active'})
    until('the service to run', lambda: running(service))
    refused(400, 'attempting to demote the last manager', lambda: node.update({'Role': 'worker', 'Availability': 'active'}))
    refused(400, 'is a cluster manager', lambda: client.api.remove_node(node.id, force=True))


def case_secrets_and_configs_reach_the_container(client):
    init(client)
    secret = client.secrets.create(name='password', data=b'swordfish', labels={'tier': 'gold'})
    config = client.configs.create(name='settings', data=b'color=blue')
    assert [one.id for one in client.secrets.list(filters={'name': 'password'})] == [secret.id]
    assert client.configs.list(filters={'name': 'nobody'}) == []
    refused(409, 'already exists', lambda: client.secrets.create(name='password', data=b'x'))
    service = client.services.create(
        IMAGE,
        SLEEP,
        name='reader',
        secrets=[types.SecretReference(secret.id, 'password', filename='pass', mode=0o400)],
        configs=[types.ConfigReference(config.id, 'settings', filename='/etc/settings')],
        **GRACE,
    )
    until('the reader to run', lambda: running(service))
    (container,) = client.containers.list(filters={'label': 'com.docker.swarm.service.name=reader'})
    assert container.exec_run('cat /run/secrets/pass').output == b'swordfish'
    assert container.exec_run('cat /etc/settings').output == b'color=blue'
    refused(400, 'is in use by the following service: reader', secret.remove)
    service.remove()
    assert secret.remove() and config.remove()
    try:
        client.secrets.get(secret.id)
        raise AssertionError('the secret is still there')
    except NotFound:
        pass


def case_a_service_from_create_to_remove(client):
    init(client)
    service = client.services.create(
        IMAGE,
        ['sh', '-c', 'echo hello; sleep 1000000'],
        name='web',
        env=['COLOR=blue'],
        labels={'tier': 'gold'},
        mode=types.ServiceMode('replicated', 2),
        **GRACE,
        update_config=types.UpdateConfig(parallelism=2, order='start-first'),
        resources=types.Resources(mem_limit=64 * 1024 * 1024),
    )
    until('two tasks', lambda: len(running(service)) == 2)
    assert service.name == 'web' and service.attrs['Spec']['Labels'] == {'tier': 'gold'}
    assert [one.id for one in client.services.list(filters={'label': 'tier=gold'})] == [service.id]
    names = sorted(container.name for container in client.containers.list())
    assert [name.split('.')[:2] for name in names] == [['web', '1'], ['web', '2']], names
    assert service.scale(3)
    until('three tasks', lambda: len(running(service)) == 3)
    service.reload()
    service.update(image=IMAGE, env=['COLOR=red'])
    service.reload()
    assert service.attrs['Spec']['TaskTemplate']['ContainerSpec']['Env'] == ['COLOR=red']
    assert service.attrs['Spec']['Mode']['Replicated']['Replicas'] == 3
    until('the update to end', lambda: client.services.get('web').attrs['UpdateStatus']['State'] == 'completed', 90)
    assert b'hello' in b''.join(service.logs(stdout=True))
    forced = client.services.get('web')
    assert forced.force_update()
    assert client.services.get('web').attrs['Spec']['TaskTemplate']['ForceUpdate'] == 1
    stale = service.attrs['Version']['Index']
    service.remove()
    refused(404, 'service web not found', lambda: client.api.update_service('web', stale))
    until('the containers to be gone', lambda: not client.containers.list(all=True, ignore_removed=True))


def case_networks_of_the_cluster_and_of_the_engine(client):
    init(client)
    overlay = client.networks.create('back', driver='overlay', attachable=True, labels={'tier': 'gold'})
    bridge = client.networks.create('own', driver='bridge')
    try:
        scopes = {network.name: network.attrs['Scope'] for network in client.networks.list()}
        assert (scopes['back'], scopes['own'], scopes['bridge']) == ('swarm', 'local', 'local'), scopes
        assert [one.id for one in client.networks.list(filters={'scope': 'swarm', 'label': 'tier=gold'})] == [overlay.id]
        service = client.services.create(IMAGE, SLEEP, name='web', networks=['back'], **GRACE)
        until('the service to run', lambda: running(service))
        assert service.attrs['Spec']['TaskTemplate'].get('Networks') or service.attrs['Spec']['Networks']
        (task,) = running(service)
        assert task['NetworksAttachments'][0]['Network']['ID'] == overlay.id
        service.remove()
        until('the network to be free', lambda: removes(overlay))
    finally:
        bridge.remove()


def removes(network):
    try:
        network.remove()
        return True
    except APIError:
        return False


def case_what_is_the_engine_s(client):
    init(client)
    assert client.containers.run(IMAGE, 'echo from the engine', remove=True) == b'from the engine\n'
    volume = client.volumes.create('shoal-conformance')
    assert 'shoal-conformance' in [one.name for one in client.volumes.list()]
    volume.remove()
    assert client.images.get(IMAGE).tags
    assert 'Containers' in client.df()


def case_events(client):
    init(client)
    since = time.time() - 1
    created = client.services.create(IMAGE, SLEEP, name='seen', **GRACE)
    created.remove()
    stream = client.events(since=since, until=time.time() + 1, filters={'scope': 'swarm', 'type': 'service'}, decode=True)
    assert [event['Action'] for event in stream if event['Actor']['ID'] == created.id] == ['create', 'remove']


def leave(client):
    if client.info()['Swarm']['LocalNodeState'] != 'inactive':
        client.swarm.leave(force=True)


def outcome(client, name):
    try:
        leave(client)
        globals()['case_' + name](client)
        leave(client)
        return {'case': name}
    except Exception:  # whatever went wrong is the answer
        return {'case': name, 'failure': traceback.format_exc()}


if __name__ == '__main__':
    every = [name[len('case_'):] for name in list(globals()) if name.startswith('case_')]
    docker_client = docker.from_env(version='auto')
    for case in sys.argv[1:] or every:
        print(json.dumps(outcome(docker_client, case)), flush=True)
    docker_client.close()
