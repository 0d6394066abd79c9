from tests.widgets.hands import *
def test_x(on_phantom):
    press(on_phantom, "new annotation")
    assert False
