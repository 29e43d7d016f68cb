import torch

from lab.kf_tiny.reader_training import ReaderRecipe, train_reader


def test_a_reader_whose_training_was_killed_ends_up_the_same(tmp_path):
    recipe = ReaderRecipe(steps=4, faces=2, moments=2, save_every=2)
    whole = train_reader(tmp_path / "whole", recipe)

    killed = tmp_path / "killed"

    def stop_after_the_first_save(*_):
        if (killed / "reader.pt").exists():
            raise KeyboardInterrupt

    hook = torch.nn.modules.module.register_module_forward_pre_hook(lambda module, _: stop_after_the_first_save())
    try:
        train_reader(killed, recipe)
    except KeyboardInterrupt:
        pass
    finally:
        hook.remove()
    assert torch.load(killed / "reader.pt", weights_only=True)["step"] == 2

    resumed = train_reader(killed, recipe)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
